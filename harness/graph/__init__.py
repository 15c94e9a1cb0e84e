"""A model as op calls: recorded, differentiated, recomputed."""
