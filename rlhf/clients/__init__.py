"""HTTP clients of policy, reward and trainer: retries and typed errors."""
