"""How fast is text generated, and beside transformers? See README.md beside this file."""
