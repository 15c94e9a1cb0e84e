"""Does a model learn in bf16 what it learns in float32? See README.md beside this file."""
