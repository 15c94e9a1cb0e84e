import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def shared_data() -> Path:
    """Texts and tokenizer files that are too large for the repository."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("HARNESS_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("no shared data: set HARNESS_SHARED_DATA to the folder that has it")
    return folder


@pytest.fixture
def gpt2_files(shared_data, monkeypatch) -> None:
    """tiktoken finds GPT-2's two files without a network."""
    if not (shared_data / "tiktoken").is_dir():
        pytest.skip("no tiktoken folder in the shared data")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
