"""Text from elsewhere never reaches a terminal or a log raw."""

from __future__ import annotations

import ast
import io
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from dsanet.engine.report.console import Console
from dsanet.errors import ModelError, UserError, printable
from dsanet.terminal import print_line
from pipelines.errors import LoaderError
from pipelines.quarantine import Quarantine
from pipelines.read.frames import SampleError
from pipelines.read.staging import log
from shards import ShardError
from tests.integration.scripts import train_here

ROOT = Path(__file__).resolve().parents[2]
# Ends a line, clears the screen, sets the title, turns the direction, hides, and breaks encodings.
EVIL = "a\nerror: b\r\x1b[2J\x1b]0;c\x07\x9b31m\u202ed\u2066\u200b\u2028\x7f\ud800[bold]:warning:"
# Programs that write lines of their own, and why.
MAY_PRINT = {
    "dsanet/terminal.py",  # the one place
    "dsanet/engine/launch/requeue.py",  # runs without the project; escapes by itself
    "slurm/submit.py",  # refuses control characters in every word
    "tools/bench.py",  # names of its own
    "tools/gpu_check.py",  # likewise
}


def test_every_character_that_is_not_printed_as_itself_is_escaped():
    everything = "".join(map(chr, range(0x110000)))
    shown = printable(everything)
    assert shown.isprintable()
    quoted = printable(everything.replace("'", "").replace("\\", ""))
    assert ast.literal_eval(f"'{quoted}'") == everything.replace("'", "").replace("\\", "")
    kept = set(shown)
    changed = {unicodedata.category(c)[0] for c in everything if c not in kept}
    assert changed == {"C", "Z"}  # control, format and unassigned ones, and odd spaces
    assert printable("视频 é [ok] \\ x") == "视频 é [ok] \\ x"
    assert printable(printable(EVIL)) == printable(EVIL)
    assert printable("ab" * 9, 5) == "ababa ..."


@pytest.mark.parametrize("kind", [UserError, ModelError, LoaderError, ShardError, SampleError])
def test_the_text_of_an_error_is_one_line(kind):
    assert str(kind(f"{EVIL}: damaged")) == f"{printable(EVIL)}: damaged"


def test_lines_on_standard_output_and_error(capsys):
    print_line(EVIL)
    print_line(EVIL, error=True)
    log(EVIL)
    out, err = capsys.readouterr()
    assert out == f"{printable(EVIL)}\n"
    assert err == 2 * out


def test_the_console_and_its_log(tmp_path, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    console = Console(tmp_path / "log", title=EVIL)
    console.print(EVIL)
    console.show_record({"kind": "epoch", "epoch": 1, "verdict": EVIL})
    with pytest.raises(OSError), console.errors_logged():  # noqa: PT011
        raise OSError(EVIL)
    shown = printable(EVIL)
    assert stream.getvalue().splitlines() == [shown, f"epoch 1: {shown}"]
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    texts = [line.split("  ", 1)[1] for line in lines]
    assert texts == [shown, f"epoch 1: {shown}", f"error: {shown}"]


def test_the_title_of_the_panel_is_no_markup():
    console = Console(title="model[bold] -> run\x1b[2J[/nothing]:warning:")
    stream = io.StringIO()
    RichConsole(file=stream, width=120).print(console._panel())
    assert r"model[bold] -> run\x1b[2J[/nothing]:warning:" in stream.getvalue()


def test_the_list_of_broken_videos(tmp_path, capsys):
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path, "train", 10, 1.0).add(3, EVIL)
    assert capsys.readouterr().err == f"warning: quarantined: {printable(EVIL)}\n"
    [line] = path.read_text(encoding="utf-8").splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["reason"] == printable(EVIL)


def test_a_name_on_the_command_line_stays_on_its_line(tmp_path, capfd):
    data = tmp_path / EVIL.replace("/", "").replace("\ud800", "")
    words = ("--data", data, "--model", "dsa_i3d_r18", "--out", tmp_path / "run")
    assert train_here(*words) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.isprintable()
    assert r"\x1b[2J" in line


def test_only_one_place_prints():
    """So that no message can be forgotten."""
    packages = ("dsanet", "pipelines", "shards", "slurm")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    files += [ROOT / "train.py", ROOT / "eval.py", *(ROOT / "tools").glob("*.py")]
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id == "print":
                found.append(str(path.relative_to(ROOT)))
    assert set(found) <= MAY_PRINT
