"""The experience stream: push once, pull, acknowledge. No torch."""
