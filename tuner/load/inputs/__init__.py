"""What requests hold: tensors made up, or read from the user's files."""
