"""Does the first command keep its promise? See README.md beside this file."""
