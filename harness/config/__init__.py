"""What a run is configured by, and what the command line may set."""
