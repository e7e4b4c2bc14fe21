"""A config.yaml from somebody else: one line, whatever is in it, and no harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsanet.engine.command_line import parse_train
from dsanet.engine.errors import UsageError
from dsanet.engine.settings_file import MAX_BYTES, read_settings_file
from tests.fuzz.cases import YAMLS

WORDS = ["--data", "x", "--model", "tsn_i3d_r18", "--out", "y"]


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        parse_train([*WORDS, "--config", str(path)])
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1000
    return text


def merges(levels: int) -> str:
    """Mappings that merge the one before them 9 times: 9 ** levels pairs while they are made."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(levels):
        lines.append(f"a{level + 1}: &a{level + 1} {{<<: [{', '.join([f'*a{level}'] * 9)}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (merges(12), "more than 10000 values"),
        ("seed: &a [*a]", "more than 10000 values"),
        (YAMLS[0], "nested too deeply|more than 10000 values"),
        (YAMLS[1], "nested too deeply|more than 10000 values"),
        ("a: [" + ", ".join("x" * 20_000) + "]", "more than 10000 values"),
        ("[" * 5000, "nested too deeply"),
        ("model: " + "[" * 300 + "]" * 300, "nested too deeply"),
        ("seed: 2020-99-99", "not valid YAML"),
        (f"seed: {'9' * 5000}", "not valid YAML"),
        ("seed: 2020-01-01", "seed must be a whole number"),
        ('model: "a\\ud800"', "not Unicode"),
        ("1: 2", "the key 1 is not text"),
        ("optim: 5", "optim must be a mapping"),
        ("optim: [1]", "optim must be a mapping"),
        ('mo: "\\e[2J"', "unknown key mo"),
        (f"seed: {'x' * 100_000}", "seed must be a whole number"),
    ],
)
def test_what_no_settings_have_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert str(path) in (found := refusal(path))
    assert any(part in found for part in message.split("|")), found


def test_no_object_is_made(tmp_path):
    path = tmp_path / "config.yaml"
    text = f"model: !!python/object/apply:os.mkdir [{tmp_path / 'evil'}]"
    path.write_text(text, encoding="utf-8")
    assert "not valid YAML" in refusal(path)
    assert not (tmp_path / "evil").exists()


def test_a_file_that_is_not_regular_or_too_large(tmp_path):
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger than" in refusal(path)
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)
    path.unlink()
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", tmp_path / "pipe", "/dev/zero"):  # a file in the place of a group
        path.write_text(f"optim: {name}", encoding="utf-8")
        with pytest.raises(UsageError, match="not a regular file"):
            parse_train([*WORDS, "--config", str(path)])


def test_aliases_within_bounds_are_taken(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n", encoding="utf-8")
    assert read_settings_file(path) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
