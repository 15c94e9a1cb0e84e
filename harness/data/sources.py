"""Where text comes from: `data.source` says which kind, `data.path` where it lies.

stdlib            the standard library of the running Python: its top-level *.py, about 4.7 MB
tinyshakespeare   downloaded once into the cache; or from data.path, the same bytes
text              data.path: a file, a folder with everything under it, or a glob
tokens            data.path: files of token ids, read by dataset.py; not text
"""

import difflib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from harness.data.files import find_files, read_bytes
from harness.data.tinyshakespeare import read_tinyshakespeare
from harness.errors import ConfigError, DataError

SOURCES = ("stdlib", "tinyshakespeare", "text", "tokens")

# git calls a file binary by the same sign: a zero byte near its beginning.
BINARY_PROBE_BYTES = 8000


@dataclass(frozen=True)
class Document:
    """One file. name: its path, for errors."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Text:
    """At least one document, none empty. description: what was read, for people."""

    documents: list[Document]
    description: str


def check_source(source: str, path: str | None) -> None:
    """Refuse a source that is unknown, lacks its path, or has one that it would not read."""
    if source not in SOURCES:
        near = difflib.get_close_matches(str(source), SOURCES, n=1)
        raise ConfigError(
            f"no data source is called {source!r}",
            slug="source-unknown",
            there_is=", ".join((*SOURCES, "counting")),
            do=f"data.source={near[0]}" if near else "data.source=NAME",
        )
    if source == "stdlib" and path is not None:
        raise ConfigError(
            f"data.source=stdlib reads no path, and data.path={path} was given",
            slug="source-takes-no-path",
            do="data.source=text to read that path, or leave data.path out",
        )
    if source in ("text", "tokens") and not path:
        raise ConfigError(
            f"data.source={source} needs a path",
            slug="source-needs-path",
            do="data.path=FILE, a folder, or a glob in quotes",
        )


def read_text(source: str, path: str | None, cache_dir: Path) -> Text:
    """The documents of a source of text, in an order that is the same every time."""
    check_source(source, path)
    left_out = 0
    if source == "stdlib":
        folder = Path(sysconfig.get_path("stdlib"))
        documents = [_document(file) for file in sorted(folder.glob("*.py"))]
        place = str(folder)
    elif source == "tinyshakespeare":
        file, data = read_tinyshakespeare(path, cache_dir)
        documents = [Document(str(file), data)]
        place = str(file)
    else:
        assert source == "text" and path, "tokens are not text"
        files = find_files(path)
        if os.path.isdir(os.path.expanduser(path)):
            everything = len(files)
            files = [file for file in files if not _is_binary(file)]
            left_out = everything - len(files)
        documents = [_document(file) for file in files]
        place = path

    documents = [document for document in documents if document.data]
    if not documents:
        raise DataError(
            f"there is no text in {place}",
            slug="data-empty",
            where=place,
            found=f"{left_out:,} binary files" if left_out else "0 bytes",
            do="data.path=FILE with text in it, or data.source=stdlib",
        )
    size = sum(len(document.data) for document in documents)
    description = f"{source}: {_files(len(documents))}, {size:,} bytes"
    if left_out:
        description += f" ({left_out:,} binary left out)"
    return Text(documents, description)


def _document(path: Path) -> Document:
    return Document(str(path), read_bytes(path))


def _is_binary(path: Path) -> bool:
    return b"\0" in read_bytes(path, at_most=BINARY_PROBE_BYTES)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
