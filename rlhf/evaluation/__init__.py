"""Measures of text and of learning, on plain Python values and NumPy arrays; no torch."""
