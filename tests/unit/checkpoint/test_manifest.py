"""The manifest is sealed, and one from a stranger can't lead out of its folder."""

import hashlib
import json

import numpy as np
import pytest

from harness import checkpoint
from harness.errors import CheckpointError, NumericsError
from harness.files import tensor_file


@pytest.fixture
def path(tmp_path):
    return checkpoint.save(tmp_path, 3, {"model": {"w": np.ones(2)}}, {"seed": 1}, keep=None)


def reseal(path, change):
    """Change the manifest as somebody would who knows the format."""
    manifest = path / "manifest.json"
    content = json.loads(manifest.read_text())
    content = change(content) or content
    content.pop("sha256", None)
    content["sha256"] = ""
    body = json.dumps(content, indent=2).removesuffix('  "sha256": ""\n}')
    manifest.write_text(f'{body}  "sha256": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n')


def test_a_manifest_resealed_without_a_change_loads(path):
    reseal(path, lambda content: None)
    assert checkpoint.load(path).step == 3


def test_every_flipped_byte_of_the_manifest_is_found(path):
    manifest = path / "manifest.json"
    good = manifest.read_bytes()
    for index in range(len(good)):
        manifest.write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
    manifest.write_bytes(good)
    checkpoint.load(path)


def test_a_later_version_says_so(path):
    reseal(path, lambda content: content.update(version=2))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert caught.value.slug == "checkpoint-version"
    assert caught.value.facts["expected"] == "version 1"
    assert caught.value.facts["found"] == "version 2"


RECORD = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(format="another"),
        lambda c: c.update(step="3"),
        lambda c: c.update(step=-1),
        lambda c: c.update(step=True),
        lambda c: c.update(state=[]),
        lambda c: c.update(files=[]),
        lambda c: c.update(files={"../../etc/passwd": RECORD}),
        lambda c: c.update(files={"model.safetensors\n": RECORD}),
        lambda c: c.update(files={"model.safetensors": None}),
        lambda c: c.update(files={"model.safetensors": {"bytes": -1, "sha256": "0" * 64}}),
        lambda c: c.update(files={"model.safetensors": {"bytes": 1, "sha256": 5}}),
        lambda c: c.update(files={"absent.safetensors": RECORD}),
    ],
)
def test_a_sealed_manifest_is_still_checked(path, change):
    reseal(path, change)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert caught.value.slug == "checkpoint-damaged"


def record_of(raw):
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def test_a_sealed_manifest_does_not_lead_out_of_its_folder(path, tmp_path):
    raw = (path / "model.safetensors").read_bytes()
    (tmp_path / "secret.safetensors").write_bytes(raw)
    for name in ("../secret.safetensors", f"{tmp_path}/secret.safetensors"):
        reseal(path, lambda content, name=name: content.update(files={name: record_of(raw)}))
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(path)


def replace_model(path, raw):
    (path / "model.safetensors").write_bytes(raw)
    reseal(path, lambda content: content.update(files={"model.safetensors": record_of(raw)}))


def test_a_malformed_tensor_file_under_a_good_seal_is_ignored(path, tmp_path):
    replace_model(path, b"\xff" * 64)
    found, ignored = checkpoint.newest(tmp_path)
    assert found is None
    assert "header" in ignored[0].reason


def test_nan_under_a_good_seal_is_not_given_to_the_model(path):
    arrays = {"w": np.array([1.0, np.nan])}
    replace_model(path, b"".join(bytes(piece) for piece in tensor_file.encode(arrays)))
    with pytest.raises(NumericsError) as caught:
        checkpoint.load(path).tensors("model")
    assert caught.value.facts["found"] == "nan at (1,)"


def test_deep_nesting_under_a_good_seal_is_refused(path):
    body = "[" * 100_000
    seal = f'  "sha256": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'
    (path / "manifest.json").write_text(body + seal)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_state_that_is_too_large_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path, 1, {}, {"blob": "x" * (17 << 20)}, keep=None)
    assert caught.value.slug == "checkpoint-state-too-large"
    assert list(tmp_path.iterdir()) == []
