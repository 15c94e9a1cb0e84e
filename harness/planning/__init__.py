"""What will run, where, and in which memory: nothing is computed here."""
