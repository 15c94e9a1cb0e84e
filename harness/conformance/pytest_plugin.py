"""The pytest plugin `harness`: options and fixtures, all namespaced, for our own items only."""
