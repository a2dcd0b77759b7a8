"""The trainer: job API, rollout workers, PPO learner and reward-model training."""
