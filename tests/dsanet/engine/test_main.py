"""What a user can mend is one line that names the thing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dsanet.engine.main import run_command
from dsanet.engine.report.console import Console
from dsanet.engine.run_folder import RunFolder
from shards.format.files import write_atomic

FULL = Path("/dev/full")


def add(folder: Path) -> None:
    """Records of a run whose folder is removed meanwhile."""
    run = RunFolder(folder)
    run.add({"kind": "train"})
    shutil.rmtree(folder)
    run.add({"kind": "train"})


def add_on_full_disk(folder: Path) -> None:
    run = RunFolder(folder)
    run.metrics = FULL
    run.add({"kind": "train"})


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (add, "error: {folder}/metrics.jsonl: No such file or directory"),
        (add_on_full_disk, "error: /dev/full: no space left in /dev ("),
        (lambda _: Console(FULL).print("so far"), "error: /dev/full: no space left in /dev ("),
        (
            lambda folder: write_atomic(folder / "none" / "x.json", b"{}"),
            "error: {folder}/none/x.json: No such file or directory",
        ),
    ],
)
def test_what_the_disk_refuses_is_one_line(
    action: Callable[[Path], None], line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert run_command(lambda: action(folder) or 0) == 1
    [printed] = capfd.readouterr().err.splitlines()
    assert printed.startswith(line.format(folder=folder))
