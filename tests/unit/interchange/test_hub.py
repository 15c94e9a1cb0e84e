"""A model by its name: a stand-in for the library, and the real one where no network is."""

import sys

import pytest

from harness.errors import ConfigError, DataError, ResourceError
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.interchange.huggingface.hub import resolve_huggingface
from tests.unit.interchange import huggingface_by_hand as by_hand


@pytest.fixture
def library():
    return pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")


@pytest.fixture
def calls(library, monkeypatch, tmp_path):
    """What the library was asked for; it answers with a folder."""
    asked = []

    def snapshot_download(name, **named):
        asked.append((name, named))
        return str(by_hand.write_folder(tmp_path / "fetched", by_hand.random_weights()))

    monkeypatch.setattr(library, "snapshot_download", snapshot_download)
    return asked


def test_a_folder_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import would fail
    assert resolve_huggingface(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "gpt2").mkdir()
    assert resolve_huggingface("~/gpt2") == tmp_path / "gpt2"
    monkeypatch.chdir(tmp_path)
    assert resolve_huggingface("gpt2").resolve() == tmp_path / "gpt2"


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "a/b_c-1.5"])
def test_a_name_is_fetched_and_read(calls, tmp_path, name):
    folder = resolve_huggingface(name, cache=tmp_path / "cache")
    with HuggingFaceModel(folder) as found:
        assert found.model == by_hand.MODEL
    ((asked, named),) = calls
    assert (asked, named["cache_dir"]) == (name, tmp_path / "cache")


def test_neither_pickles_nor_code_are_asked_for(calls):
    resolve_huggingface("gpt2")
    patterns = calls[0][1]["allow_patterns"]
    assert all(p.endswith((".json", ".safetensors")) for p in patterns)
    assert "config.json" in patterns and "model.safetensors" in patterns


@pytest.mark.parametrize(
    "name", ["", "./gpt2", "../gpt2", "/nowhere/gpt2", "~/nowhere", "~nobody/x", "a/b/c", "a b",
             "a\0b", "x" * 5000, "-x", "a/..", "gpt2\n", "ä"], ids=lambda name: repr(name)[:20]
)  # fmt: skip
def test_what_is_no_name_is_never_asked_for(calls, name):
    with pytest.raises(ConfigError) as caught:
        resolve_huggingface(name)
    assert caught.value.slug == "hub-name-invalid"
    assert calls == []


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ResourceError) as caught:
        resolve_huggingface("gpt2")
    assert caught.value.slug == "hub-library-missing"
    assert "gpt2-harness[hub]" in caught.value.facts["do"]


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (ConnectionError("no route\nand more"), "hub-unreachable"),
        (OSError(28, "No space left on device"), "hub-unreachable"),
        ("LocalEntryNotFoundError", "hub-unreachable"),
        ("HFValidationError", "hub-model-missing"),
    ],
    ids=str,
)
def test_what_goes_wrong_in_the_library_is_one_error(library, monkeypatch, error, slug):
    if isinstance(error, str):
        error = getattr(library.errors, error)("it is not there")

    def snapshot_download(name, **named):
        raise error

    monkeypatch.setattr(library, "snapshot_download", snapshot_download)
    with pytest.raises(DataError) as caught:
        resolve_huggingface("gpt2")
    assert caught.value.slug == slug
    assert "\n" not in caught.value.facts["found"]


def test_no_network_is_one_error_with_a_way_by_hand(library, monkeypatch, tmp_path):
    """The library itself, pointed at a port of this machine where nobody listens."""
    monkeypatch.setattr(
        library,
        "snapshot_download",
        lambda name, **named: _original(name, **named, endpoint="http://127.0.0.1:9"),
    )
    with pytest.raises(DataError) as caught:
        resolve_huggingface("openai-community/gpt2", cache=tmp_path, timeout_s=2)
    assert caught.value.slug == "hub-unreachable"
    assert "config.json and model.safetensors" in caught.value.facts["do"]
    assert not list(tmp_path.rglob("*.safetensors"))


try:
    from huggingface_hub import snapshot_download as _original
except ImportError:
    _original = None
