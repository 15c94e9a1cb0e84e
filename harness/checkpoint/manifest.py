"""The manifest: what a checkpoint consists of, sealed, and written last.

Its last line is the sha256 of all lines before it, so that a flipped bit in the data position is
found like one in the weights. Formats of later versions keep this seal.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError, NumericsError
from harness.files.checkpoint_names import GROUP_NAME, MANIFEST, SUFFIX, damaged, step_of
from harness.files.disk import FileRecord, open_file, read_exactly

FORMAT = "gpt2-harness checkpoint"
VERSION = 1
READABLE_VERSIONS = (1,)
MAX_BYTES = 16 << 20

_SEAL = b'  "sha256": "'
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    step: int
    files: dict[str, FileRecord]  # by file name, which is the group with .safetensors
    state: dict[str, Any]


def encode_state(state: dict[str, Any]) -> str:
    """The trainer's state as JSON, or an error if it would come back as something else."""
    try:
        text = json.dumps(state, allow_nan=False)
    except ValueError as error:
        raise NumericsError(
            "the state of a checkpoint is not finite",
            slug="checkpoint-state-not-finite",
            found=_paths_not_finite(state) or error,
            effect="nothing was saved; earlier checkpoints are untouched",
        ) from None
    except TypeError as error:
        raise _not_json(str(error)) from None
    if json.loads(text) != state:
        raise _not_json("keys that are not text, or tuples, which would come back as lists")
    return text


def encode(manifest: Manifest) -> bytes:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "step": manifest.step,
        "files": {
            name: {"bytes": record.bytes, "sha256": record.sha256}
            for name, record in manifest.files.items()
        },
        "state": manifest.state,
        "sha256": "",
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    body, seal, _ = text.encode().rpartition(_SEAL)
    sealed = body + seal + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'
    if len(sealed) > MAX_BYTES:
        raise CheckpointError(
            "the state of a checkpoint is too large",
            slug="checkpoint-state-too-large",
            expected=f"at most {MAX_BYTES:,} bytes of JSON",
            found=f"{len(sealed):,}",
            do="give large arrays to the checkpoint as tensors",
        )
    return sealed


def read(checkpoint: Path) -> Manifest:
    """The manifest of the checkpoint in this folder; CheckpointError if it is not as it was written."""
    path = checkpoint / MANIFEST
    with open_file(path) as (file, size):
        if size > MAX_BYTES:
            raise damaged(path, expected=f"at most {MAX_BYTES:,} bytes", found=f"{size:,}")
        raw = bytearray(size)
        read_exactly(file, memoryview(raw), path)
    return decode(bytes(raw), path)


def decode(raw: bytes, path: Path) -> Manifest:
    body, seal, end = raw.rpartition(_SEAL)
    expected = hashlib.sha256(body).hexdigest()
    if not seal or end != f'{expected}"\n}}\n'.encode():
        found = end[:64].decode("ascii", "replace") if seal else "no seal"
        raise damaged(path, expected=f"sha256 {expected}", found=found)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(path, expected="JSON", found=str(error)[:80]) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise damaged(path, expected=f"format {FORMAT!r}", found="another")
    if content.get("version") not in READABLE_VERSIONS:
        raise CheckpointError(
            f"checkpoint is of a version that this harness can't read: {path.parent.name}",
            slug="checkpoint-version",
            where=path,
            expected="version " + " or ".join(map(str, READABLE_VERSIONS)),
            found=f"version {str(content.get('version'))[:80]}",
            effect="not loaded",
            do="load it with the release that wrote it; state.versions in the manifest may name it",
        )
    step, files, state = content.get("step"), content.get("files"), content.get("state")
    if type(step) is not int or not 0 <= step < 10**18:
        raise damaged(path, expected="a step", found=str(step)[:80])
    if not isinstance(state, dict) or not isinstance(files, dict):
        raise damaged(path, expected="files and state", found="none, or of another kind")
    named = step_of(path.parent)
    if named is not None and named != step:
        raise damaged(path, expected=f"step {named}, as the folder says", found=f"step {step}")
    return Manifest(step, {name: _record(name, files[name], path) for name in files}, state)


def _record(name: str, fields: Any, path: Path) -> FileRecord:
    # A name from a stranger's manifest must not lead out of the folder.
    if not name.endswith(SUFFIX) or not GROUP_NAME.fullmatch(name.removesuffix(SUFFIX)):
        raise damaged(path, expected=f"file names GROUP{SUFFIX}", found=repr(name)[:80])
    if not isinstance(fields, dict):
        raise damaged(path, expected=f"bytes and sha256 of {name}", found=str(fields)[:80])
    size, sha256 = fields.get("bytes"), fields.get("sha256")
    if type(size) is not int or size < 0:
        raise damaged(path, expected=f"bytes of {name}", found=str(size)[:80])
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise damaged(path, expected=f"sha256 of {name}", found=str(sha256)[:80])
    return FileRecord(size, sha256)


def _not_json(found: str) -> CheckpointError:
    return CheckpointError(
        "the state of a checkpoint would not come back as it is",
        slug="checkpoint-state-not-json",
        expected="dicts with text as keys, lists, text, numbers, booleans, None",
        found=found,
        effect="nothing was saved; earlier checkpoints are untouched",
    )


def _paths_not_finite(value: Any, path: str = "state") -> str | None:
    """Where in the state the first NaN or infinity stands."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{path} is {value}"
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        if found := _paths_not_finite(child, f"{path}.{key}"):
            return found
    return None
