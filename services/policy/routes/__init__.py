"""HTTP routes of the policy service."""
