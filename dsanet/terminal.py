"""Output of commands: one line a message, whatever its text and the encoding of the terminal."""

from __future__ import annotations

import io
import sys

from dsanet.errors import printable


def print_line(text: object, *, error: bool = False) -> None:
    """Print one line on standard output or error.

    The text may quote file names, keys and class names from anywhere; `printable` escapes what
    could end the line, colour or clear the terminal, or hide a part of the text.
    """
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


def escape_unencodable_output() -> None:
    r"""Let standard output and error print any text, whatever the encoding of the locale.

    A character that the encoding lacks is written as an escape such as `\u89c6`; Python's default
    for standard output is to raise UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
