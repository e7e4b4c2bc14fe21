"""Output in an encoding that lacks some characters."""

from __future__ import annotations

import io
import sys

import pytest

from dsanet.engine.report.output import lasting_output
from dsanet.terminal import escape_unencodable_output


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", r"\u89c6 é"), ("gbk", "视 é")])
def test_characters_that_the_encoding_lacks_are_escaped(monkeypatch, encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    escape_unencodable_output()
    print("视 é", flush=True)
    assert stream.buffer.getvalue().decode(encoding) == f"{shown}\n"


def test_a_command_prints_any_text(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        print("视")
    assert stream.buffer.getvalue() == b"\\u89c6\n"


def test_a_stream_of_another_kind_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    escape_unencodable_output()
