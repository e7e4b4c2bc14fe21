"""Standard output and error that go away: the run does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.scripts import ROOT, course, environment, train_here


def run_in_shell(redirection: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a script in bash with a redirection or a pipe; the exit code is the script's."""
    command = f'"$@" {redirection}; exit "${{PIPESTATUS[0]}}"'
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, *map(str, words)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180,
    )  # fmt: skip


@pytest.mark.parametrize(
    "redirection",
    ["| head -n 1", "2>&1 | head -n 1", "2>&1 | true", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"],
)
def test_the_run_goes_on_and_logs_every_line(
    redirection: str, small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    words = ("train.py", "--data", small_shards, "--config", tiny, "--out", tmp_path / "run")
    done = run_in_shell(redirection, *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert course(tmp_path / "run") == course(trained)
    lines, expected = (
        [line.split("  ")[1].split(" ")[0] for line in (run / "log").read_text().splitlines()]
        for run in (tmp_path / "run", trained)
    )
    assert lines == expected


def test_the_exit_code_of_an_error_stays_and_the_log_has_the_error(
    small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("train.py", "--data", tmp_path / "none", "--config", tiny, "--out", tmp_path / "run")
    for redirection in ("2>&1 | true", "<&- >&- 2>&-"):
        assert run_in_shell(redirection, *words).returncode == 1
    errors = (tmp_path / "run" / "log").read_text().splitlines()
    assert len(errors) == 2
    assert all(f"error: {tmp_path}/none" in line for line in errors)


def test_an_evaluation_goes_on(small_shards: Path, trained: Path, tmp_path: Path) -> None:
    words = ("eval.py", "--data", small_shards, "--checkpoint", trained, "--out", tmp_path)
    done = run_in_shell("2>&1 | true", *words, "--clips", 2, "--crops", 1)
    assert done.returncode == 0
    assert (tmp_path / "metrics.json").is_file()


def test_output_within_a_process_is_as_before(
    small_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout, sys.stderr
    assert train_here("--data", tmp_path / "none", "--model", "x", "--out", tmp_path) != 0
    assert (sys.stdout, sys.stderr) == before
    assert capfd.readouterr().err.startswith("error: ")
