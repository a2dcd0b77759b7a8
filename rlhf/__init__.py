"""What the services share: contracts, clients, serving, artifacts and language-model code."""
