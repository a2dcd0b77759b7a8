"""What `benchmarks.reward_accuracy` is made of: its cells, who trains in them, its table."""
