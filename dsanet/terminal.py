"""Output of commands on terminals and in logs whose encoding is not UTF-8."""

from __future__ import annotations

import io
import sys


def escape_unencodable_output() -> None:
    r"""Let standard output and error print any text, whatever the encoding of the locale.

    A character that the encoding lacks is written as an escape such as `\u89c6`; Python's default
    for standard output is to raise UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
