"""Other people's GPT-2, doing the very same work: what a step of ours is compared with."""
