"""Parts of `benchmarks.soak`: adapters, traffic, overload, and what is read from the running process."""
