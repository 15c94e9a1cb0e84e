"""A backend's own settings, `cupy.attention=flash`: checked against what its module lists."""

import pytest

from harness.config import command_line
from harness.config.config import options_of
from harness.contract import core_ops
from harness.errors import ConfigError, PluginError
from harness.plugins import all_ops, load
from harness.plugins.dispatch import Dispatch

SOURCE = """
from harness import hookimpl
device = "host"
arrays = "numpy"
options = {"speed": ("slow", "fast"), "shape": ("round",)}
given = []

@hookimpl
def configure(options):
    given.append(dict(options))
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    return str(file)


def made(name, options):
    return Dispatch(all_ops(), {"every_op": name}, {name: options}).backend(name)


def test_what_is_not_given_is_at_its_default(mine):
    assert made(mine, {"speed": "fast"}).module.given == [{"speed": "fast", "shape": "round"}]


def test_a_setting_that_the_backend_does_not_list_is_refused_with_the_nearest(mine):
    with pytest.raises(ConfigError) as refused:
        made(mine, {"sped": "fast"})
    assert refused.value.slug == "unknown-backend-option"
    assert refused.value.facts["nearest"] == "speed"


def test_a_value_that_the_backend_does_not_list_is_refused_with_those_there_are(mine):
    with pytest.raises(ConfigError) as refused:
        made(mine, {"speed": "fats"})
    assert refused.value.facts["there are"] == "slow, fast"


def test_the_settings_of_a_backend_that_no_op_names_are_left_alone(mine):
    Dispatch(all_ops(), {"every_op": "numpy"}, {mine: {"sped": "fast"}})


def test_the_command_line_reaches_the_backend():
    (run,) = command_line.check(["cupy.attention=flash", "cupy.matmul=cublas"])
    assert options_of(run) == {"cupy": {"attention": "flash", "matmul": "cublas"}}


def test_a_value_that_cupy_does_not_have_is_refused():
    (run,) = command_line.check(["backend=cupy", "cupy.attention=flahs"])
    with pytest.raises(ConfigError) as refused:
        Dispatch(core_ops(), {"every_op": "cupy"}, options_of(run))
    assert refused.value.facts["nearest"] == "flash"


def test_a_variant_is_held_to_the_signature_of_its_hook(tmp_path):
    file = tmp_path / "variant.py"
    file.write_text("def mine(x): ...\nvariants = {('gelu_forward', 'tf32'): mine}\n")
    with pytest.raises(PluginError) as refused:
        load(str(file), all_ops())
    assert refused.value.facts["expected"] == "gelu_forward(out_NF, x_NF)"


def test_a_variant_is_what_runs_at_its_precision_and_at_no_other(tmp_path):
    file = tmp_path / "variant.py"
    file.write_text(
        "from harness import hookimpl\n"
        "@hookimpl\ndef gelu_forward(out_NF, x_NF): ...\n"
        "def of_tf32(out_NF, x_NF): ...\n"
        "variants = {('gelu_forward', 'tf32'): of_tf32}\n"
    )
    backend = load(str(file), all_ops())
    assert backend.function("gelu_forward", "tf32").__name__ == "of_tf32"
    assert backend.function("gelu_forward", "fp32").__name__ == "gelu_forward"
