"""How long should a training step take on an H200, by arithmetic alone? See README.md here."""
