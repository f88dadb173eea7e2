"""What may vary, and within which bounds."""
