"""PPO: pure functions of tensors, the learner that applies them, its checkpoints."""
