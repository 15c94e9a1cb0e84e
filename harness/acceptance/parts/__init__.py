"""The questions to the device, one module each, in their order."""

MODULES = {
    name: f"harness.acceptance.parts.{name}"
    for name in ("conformance", "capture", "losses", "memory", "launch", "ops", "step")
}
