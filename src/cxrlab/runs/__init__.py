"""A run directory, written and read back."""
