"""Files that are there whole, and are read against their size."""
