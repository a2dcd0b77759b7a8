"""Reward-model training: data, losses, metrics, the training job."""
