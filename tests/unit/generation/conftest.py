import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def gpt2_files(monkeypatch) -> None:
    """tiktoken finds GPT-2's two files without a network."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("HARNESS_SHARED_DATA", default)) / "tiktoken"
    if not folder.is_dir():
        pytest.skip("no tiktoken folder in the shared data: set HARNESS_SHARED_DATA")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
