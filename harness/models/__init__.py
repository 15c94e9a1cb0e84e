"""Models, each written once, forwards, as a program of the contract's ops."""
