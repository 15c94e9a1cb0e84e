"""The calls that a half-op is judged on."""
