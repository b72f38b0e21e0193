"""What `woundray doctor` says: what a machine has, and what would run on it."""
