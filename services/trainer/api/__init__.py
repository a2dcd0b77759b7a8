"""The job API. No torch."""
