"""What a run asks of a device, and what its backends share."""
