"""The stack as local processes: weights, Redis, supervised services."""
