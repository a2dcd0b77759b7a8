"""The embedded engine: batched sampling on torch."""
