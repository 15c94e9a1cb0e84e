"""The shipped suite on this repository's backends, as `pytest --pyargs harness.conformance` runs it."""

from harness.conformance.test_backends import (  # noqa: F401
    backend,
    pytest_generate_tests,
    test_half_op_is_right_at_a_real_gpt2_shape,
    test_half_op_obeys_every_law,
    test_half_op_obeys_every_law_on_drawn_cases,
)
from harness.conformance.test_references import (  # noqa: F401
    test_reference_backward_is_the_slope_of_reference_forward,
)
