"""The settings of a run, their bounds, and what the command line may set."""
