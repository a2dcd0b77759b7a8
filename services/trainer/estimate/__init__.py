"""What a job takes in memory and work, from its config and the model's shape. Formulas alone: no I/O, no torch."""
