"""How strict the conformance suite is with wrong kernels, and how fair to right ones."""
