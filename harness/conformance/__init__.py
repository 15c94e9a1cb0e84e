"""The laws that every backend is held to, shipped: `pytest --pyargs harness.conformance`.

judge      run a backend's half-op through its cases, and say passed, failed or xfail, with why
cases      which cases: shapes, data, None and settings, all derived from the signature
tolerance  how far a result may be from float64, from the op's own magnitude
laws       what is asked of each call besides its values
"""
