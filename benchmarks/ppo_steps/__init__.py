"""What `make bench-ppo` is made of: the work, our side, TRL's side, the check of the losses, the table."""
