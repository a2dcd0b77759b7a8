"""What `make bench-learning` is made of: the design, one cell of it, its curves, the plot."""
