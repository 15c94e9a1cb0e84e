"""What is asked of the device, one module a question, in the order in which it is asked."""

MODULES = {
    name: f"harness.acceptance.parts.{name}"
    for name in ("conformance", "capture", "losses", "memory", "launch", "ops", "step")
}
