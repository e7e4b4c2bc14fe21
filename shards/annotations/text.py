"""Reads lists as UTF-8 text, and names a place in one for a message."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.format.files import read_regular

MAX_BYTES = 1 << 29  # of a list; that of Kinetics-700 has 50 MB
MAX_QUOTED = 80  # characters of the input in a message
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Not str.splitlines(), which also splits at U+2028, U+0085, form feeds and others: names of files
# may contain them, and editors and other programs do not count them as lines.
LINE_END = re.compile(r"\r\n|\r|\n")
BLANK = " \t"
SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Place:
    """A place in a list, for messages: "train.txt, line 3".

    number: of the line or entry from 1, blank lines too; 0 for the whole file.
    unit: "line", or "entry" of a JSON file.
    """

    path: Path
    number: int = 0
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}" if self.number else str(self.path)

    def with_other(self, other: Place) -> str:
        """Return this place and a later one, for a message."""
        if (self.path, self.unit) != (other.path, other.unit):
            return f"{self} and {other}"
        plural = "entries" if self.unit == "entry" else f"{self.unit}s"
        return f"{self.path}, {plural} {self.number} and {other.number}"


@dataclass(frozen=True)
class Line:
    """A line of a list that is not blank: its text without blanks around it, and its place."""

    text: str
    place: Place


def quote(text: str) -> str:
    """Return a text in quotation marks for a message, shortened and with escapes."""
    return repr(text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}...")


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, without a byte order mark.

    Raises:
        ShardError: if it cannot be read, or is not UTF-8 text.
    """
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise ShardError(f"cannot read the list {path}: {error.strerror}") from None
    if data[:2] in UTF_16 or _looks_like_utf16(data):
        raise ShardError(
            f"{path} is UTF-16 text, which some programs call Unicode; convert it: "
            f"iconv -f UTF-16 -t UTF-8 {path.name} > utf8-{path.name}"
        )
    if b"\0" in data:
        raise ShardError(f"{path} is not a text file: it contains zero bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = len(LINE_END.findall(data[: error.start].decode("latin-1"))) + 1
        raise ShardError(
            f"{path}, line {number}: not UTF-8 text (byte 0x{data[error.start]:02x}); convert it "
            f"from its encoding, such as: iconv -f GBK -t UTF-8 {path.name} > utf8-{path.name}"
        ) from None


def _looks_like_utf16(data: bytes) -> bool:
    """Whether text without a byte order mark has a zero in every second byte."""
    head = data[:64]
    return len(head) >= 4 and (not any(head[1::2]) or not any(head[::2])) and any(head)


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a list that are not blank. Raises ShardError as `read_text` does."""
    texts = (text.strip(BLANK) for text in LINE_END.split(read_text(path)))
    return [Line(text, Place(path, number)) for number, text in enumerate(texts, 1) if text]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises ShardError if it is not valid JSON."""
    text = read_text(path)
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ShardError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: not valid JSON: {str(error)[:MAX_QUOTED]}") from None
    if "\\u" in text and SURROGATE.search(json.dumps(data, ensure_ascii=False)):
        raise ShardError(f"{path}: a text in it is half of a character (a lone surrogate)")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
