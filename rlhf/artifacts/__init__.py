"""The artifact store: adapters, reward models and checkpoints, published atomically and verified on load."""
