"""Cross between text and UTF-8 bytes, naming the place where that is impossible."""

from harness.errors import DataError


def decode(data: bytes, where: str | None = None) -> str:
    """data as text; the first byte that is not UTF-8 is named with its offset."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "text is not UTF-8",
            slug="text-not-utf8",
            where=where,
            found=f"byte 0x{data[error.start]:02X} at offset {error.start:,} ({error.reason})",
            do="convert it (iconv -t UTF-8), or data.tokenizer=bytes, which takes any bytes",
        ) from None


def encode(text: str, where: str | None = None) -> bytes:
    """text as UTF-8 bytes; bytes that Python smuggled into it, as in sys.argv, come out again."""
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise _lone_surrogate(text, error, where) from None


def checked(text: str | bytes, where: str | None = None) -> str:
    """text as a str that UTF-8 can hold."""
    if isinstance(text, bytes):
        return decode(text, where)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _lone_surrogate(text, error, where) from None
    return text


def _lone_surrogate(text: str, error: UnicodeEncodeError, where: str | None) -> DataError:
    return DataError(
        "text has half of a surrogate pair, which is no character",
        slug="text-has-surrogate",
        where=where,
        found=f"U+{ord(text[error.start]):04X} at position {error.start:,}",
    )
