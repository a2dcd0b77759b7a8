"""The console: pages for people, in front of the trainer's, policy's and reward's HTTP APIs. It stores nothing."""
