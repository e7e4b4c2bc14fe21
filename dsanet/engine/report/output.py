"""Standard output and error that may go away: printing ends then, the command does not."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from dsanet.terminal import escape_unencodable_output


class LastingStream:
    """A text stream whose lines are dropped once its reader has gone.

    The first write that fails, such as that to a closed pipe or to the terminal of a session that
    was lost, leads the stream's descriptor to /dev/null. All later output goes there, that of
    libraries in C and that of the interpreter's end, whose failure would change the exit code.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        try:
            self._stream.write(text)
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Let neither a closed standard output or error, nor one that goes away, end a command."""
    _open_standard_files()
    escape_unencodable_output()
    before = sys.stdout, sys.stderr
    # A name for "no output": without it Python has None for a descriptor that was closed.
    streams = [stream or open(os.devnull, "w", encoding="utf-8") for stream in before]  # noqa: SIM115
    sys.stdout, sys.stderr = (LastingStream(stream) for stream in streams)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = (old or new for old, new in zip(before, streams, strict=True))


def _open_standard_files() -> None:
    """Open descriptors 0, 1 and 2 where they are closed, so that no other file gets them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest one that is free
