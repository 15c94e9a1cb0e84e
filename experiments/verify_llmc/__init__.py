"""How near is a model of GPT-2 124M's size to float64? See README.md beside this file."""
