"""Language-model code on torch: loading, chat prompts, split forward passes, log-probabilities, heads."""
