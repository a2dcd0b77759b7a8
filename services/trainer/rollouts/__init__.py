"""What a rollout task does. No torch."""
