"""What a job takes in memory, work and time, from its config and the model's shape. Formulas alone: no I/O, no torch."""
