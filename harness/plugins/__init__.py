"""Find, check and bind backends."""
