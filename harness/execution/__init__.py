"""The memory of a plan, and its bound calls."""
