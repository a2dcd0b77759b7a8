"""HTTP routes of the reward service."""
