"""One part that crashes or hangs costs no other one, and all that was measured is on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_check
import pytest
from gpu import check
from gpu.check import Check, read
from gpu.plan import NAMES, PARTS, Part, listing


def rows_of(name: str, *rows: dict[str, Any]) -> str:
    """A shell command that writes the rows of a part, as a part does."""
    return f"echo '{json.dumps({'title': name, 'rows': rows})}' > $0"


class Scripted(Check):
    """A check whose parts are shell scripts; $0 is the part's JSON file."""

    scripts: dict[str, str] = {}  # noqa: RUF012

    def command(self, part: Part, seconds: float) -> list[str]:
        return ["sh", "-c", self.scripts[part.name], str(self.path(part.name))]


def run(tmp_path: Path, scripts: dict[str, str], seconds: float = 600) -> tuple[int, Path]:
    folder, scratch = tmp_path / "results", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    one = Scripted(folder, scratch, seconds, list(scripts))
    one.scripts = scripts
    return one.run(), folder


def states(folder: Path) -> dict[str, str]:
    return {state["part"]: state["state"] for state in read(folder / "summary.json")["parts"]}


def test_a_crash_and_a_hang_cost_no_other_part(tmp_path, monkeypatch, capfd):
    short = tuple(replace(part, seconds=1 if part.name == "step" else 60) for part in PARTS)
    monkeypatch.setattr(check, "PARTS", short)
    code, folder = run(tmp_path, {
        "machine": rows_of("machine", {"what": "cores", "value": 16}),
        "pixels": rows_of("pixels", {"what": "JPEG", "passed": True}) + "; kill -SEGV $$",
        "step": rows_of("step", {"what": "training step", "videos_per_second": 430.0})
        + "; echo waiting for the driver >&2; sleep 600",
        "loop": rows_of("loop", {"case": "shards / synthetic", "ratio": 0.98}),
    })  # fmt: skip
    assert code == 1
    assert states(folder) == {
        "machine": "done", "pixels": "failed", "step": "stopped at its limit", "loop": "done",
    }  # fmt: skip
    assert read(folder / "pixels.json")["rows"] == [{"what": "JPEG", "passed": True}]
    assert read(folder / "pixels.json")["exit"] == -11
    assert "waiting for the driver" in read(folder / "step.json")["output"]
    summary = read(folder / "summary.json")
    assert summary["machine"]["rows"] == [{"what": "cores", "value": 16}]
    verdicts = {row["goal"]: row["verdict"] for row in summary["goals"]}
    assert verdicts["training step, T = 4"] == verdicts["from shards / synthetic"] == "met"
    printed = capfd.readouterr()
    assert "waiting for the driver" in printed.out
    assert printed.err.splitlines()[-1].startswith("error: failed: pixels, step")


def test_a_check_that_does_not_pass_fails_the_command(tmp_path):
    rows = [{"what": "JPEG", "passed": True}, {"what": "h264", "passed": False, "mean": 9.0}]
    code, folder = run(tmp_path, {"pixels": rows_of("pixels", *rows)})
    assert code == 1
    expected = [{"part": "pixels", "what": "h264", "passed": False, "mean": 9.0}]
    assert read(folder / "summary.json")["failed_checks"] == expected


def test_the_time_of_the_whole_check_cuts_the_tail(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "LEAST_SECONDS", 0.5)
    scripts = {"step": rows_of("step", {"what": "x"}) + "; sleep 600", "loop": "exit 1"}
    code, folder = run(tmp_path, scripts, seconds=1.5)
    assert code == 0  # what there was no time for is no failure
    assert states(folder) == {"step": "cut: no time left", "loop": "not run: no time left"}
    assert read(folder / "step.json")["rows"] == [{"what": "x"}]


def test_at_most_eight_files_are_written(tmp_path):
    scripts = {name: rows_of(name, {"what": "x"}) for name in NAMES}
    code, folder = run(tmp_path, scripts)
    assert code == 0
    assert len(list(folder.iterdir())) <= 8


def test_the_list_names_every_part_and_what_needs_a_card(capsys):
    assert gpu_check.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == listing()
    assert [line.split()[1] for line in printed.splitlines()] == list(NAMES)
    assert "on a GPU only: nvJPEG, NVDEC" in printed


@pytest.mark.parametrize("words", [[], ["--json", "x", "--minutes", "0"], ["--parts", "models"]])
def test_wrong_usage(words: Sequence[str], capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(list(words))
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_results_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "step.json").write_text("{}")
    assert gpu_check.main(["--json", str(tmp_path)]) == 2
    assert "step.json exists already" in capsys.readouterr().err
