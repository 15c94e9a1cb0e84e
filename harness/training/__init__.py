"""A step of training: forward, backward, update."""
