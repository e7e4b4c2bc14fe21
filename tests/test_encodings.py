"""Every text file is opened with an encoding: the locale's default differs between machines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.test_architecture import ROOT, source_files


def is_text_mode(call: ast.Call) -> bool:
    """Whether a call of `open` or `.open` names a text mode; without a mode, `open` alone does."""
    names = isinstance(call.func, ast.Name)
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    modes += call.args[1:2] if names else call.args[:1]
    if not modes:
        return names
    mode = modes[0].value if isinstance(modes[0], ast.Constant) else ""
    return isinstance(mode, str) and set(mode) <= set("rwaxt+") and mode != ""


def opens_text_by_locale(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    if "encoding" in given or None in given:
        return False
    if name in ("read_text", "write_text"):
        return not call.args[name == "write_text" :]
    return name == "open" and is_text_mode(call)


def find(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [f"{path.relative_to(ROOT)}:{c.lineno}" for c in calls if opens_text_by_locale(c)]


def test_every_text_file_is_opened_with_an_encoding():
    assert [place for path in source_files() for place in find(path)] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("path.read_text()", True),
        ("path.write_text(x)", True),
        ("open(path)", True),
        ("open(path, 'a')", True),
        ("path.open('a')", True),
        ("open(path, 'rb')", False),
        ("path.open('a', encoding='utf-8')", False),
        ("path.read_text('utf-8-sig')", False),
        ("av.open(path)", False),
    ],
)
def test_the_search_finds_calls_without_an_encoding(text, wrong):
    call = ast.parse(text, mode="eval").body
    assert opens_text_by_locale(call) is wrong
