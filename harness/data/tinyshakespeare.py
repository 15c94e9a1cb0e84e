"""Tiny Shakespeare: 1,115,394 characters of plays, the smallest text that is fun to sample from."""

import hashlib
import os
from pathlib import Path

from harness.data.files import read_bytes, write_atomically
from harness.errors import DataError, ResourceError

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SIZE = 1_115_394
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT_S = 30


def read_tinyshakespeare(path: str | None, cache_dir: Path) -> tuple[Path, bytes]:
    """The text and its file: path if given, else the copy in cache_dir, downloaded once."""
    if path is not None:
        file = Path(os.path.expanduser(path))
        return file, _checked(
            read_bytes(file), str(file), "to train on another text: data.source=text"
        )
    file = cache_dir / "tinyshakespeare.txt"
    if not file.exists():
        data = _checked(_download(), URL, "try again, or data.path=FILE")
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cache folder can't be made: {cache_dir}", slug="cache-not-made", found=error
            ) from error
        write_atomically(file, [data])
    return file, _checked(read_bytes(file), str(file), f"delete {file}; it is downloaded again")


def _download() -> bytes:
    import urllib.request

    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT_S) as response:
            data: bytes = response.read(SIZE + 1)  # a byte more shows that it is too long
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        raise DataError(
            "tinyshakespeare can't be downloaded",
            slug="download-failed",
            where=URL,
            found=error,
            do="data.path=FILE with a copy of it, or data.source=stdlib, which needs no network",
        ) from error
    return data


def _checked(data: bytes, where: str, do: str) -> bytes:
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != SHA256:
        raise DataError(
            "this is not tinyshakespeare",
            slug="tinyshakespeare-differs",
            where=where,
            expected=f"{SIZE:,} bytes, sha256 {SHA256}",
            found=f"{len(data):,} bytes, sha256 {sha256}",
            do=do,
        )
    return data
