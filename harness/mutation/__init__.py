"""Break a backend's source, and see whether the conformance suite notices."""
