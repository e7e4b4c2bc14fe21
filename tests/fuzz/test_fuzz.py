"""No damaged or hostile file ends a command with more than a line, hangs it or leads it astray.

Each case damages one file, by a seed, and runs a command on it in a child process that has limits.
It must end with exit code 0 to 3 and one line of error, without a traceback, within 20 seconds and
1.5 GB, and write nothing outside of the folders that it was given.

To repeat one case, with BASE and WORK empty folders but for a shard set in BASE/set:
python -m tests.fuzz.child BASE WORK deep tars:17:1
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scripts import ROOT, environment

QUICK = {"manifest": 50, "arrays": 60, "tars": 50, "frames": 10, "checkpoint": 15, "config": 15}
SLOW = {
    "manifest": 900,
    "arrays": 1200,
    "tars": 1200,
    "frames": 500,
    "checkpoint": 700,
    "config": 500,
}
SHOWN = 5


@pytest.fixture(scope="session")
def base(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz-base")
    (folder / "set").symlink_to(small_shards)
    return folder


def run_cases(base: Path, work: Path, depth: str, cases: list[tuple[str, int]]) -> list[str]:
    """Run cases in child processes, a new one after each that ended early; the faults found.

    A case that was too slow has a second try: the machine may be busy.
    """
    faults, tries = [], 0
    while cases:
        words = [f"{kind}:{seed}:1" for kind, seed in cases]
        tries += 1
        folder = work / str(tries)
        variables = environment(TMPDIR=str(work), HOME=str(folder / "home"))
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.child", str(base), str(folder), depth, *words],
            cwd=ROOT, env=variables, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        begun, ended = read_report(done.stdout)
        faults += [describe(entry) for entry in ended if entry["faults"]]
        assert begun, done.stderr
        cases = cases[len(begun) :]
        if len(ended) == len(begun):
            assert done.returncode == 0, done.stderr
        elif done.returncode == -signal.SIGALRM and len(begun) > 1:
            cases = [tuple(begun[-1]), *cases]  # it is the first one now
        else:
            how = f"ended the process with {done.returncode}: {done.stderr[-1500:]}"
            faults.append(f"{begun[-1]} {how}")
    return faults


def read_report(text: str) -> tuple[list[Any], list[dict[str, Any]]]:
    """The cases that began and the results of those that ended."""
    lines = [json.loads(line) for line in text.splitlines()]
    begun = [line["begin"] for line in lines if "begin" in line]
    return begun, [line for line in lines if "end" in line]


def describe(entry: dict[str, Any]) -> str:
    return f"{entry['end']} {entry['faults']}\n{entry['text']}"


def check(base: Path, work: Path, depth: str, counts: dict[str, int]) -> None:
    cases = [(kind, seed) for kind, count in counts.items() for seed in range(count)]
    faults = run_cases(base, work, depth, cases)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:SHOWN])


def test_200_damaged_files(base: Path, tmp_path: Path) -> None:
    assert sum(QUICK.values()) == 200
    check(base, tmp_path, "quick", QUICK)


@pytest.mark.slow
def test_5000_damaged_files(base: Path, tmp_path: Path) -> None:
    assert sum(SLOW.values()) == 5000
    check(base, tmp_path, "deep", SLOW)


def test_the_fuzzer_finds_faults(base: Path, tmp_path: Path) -> None:
    """What it is there for: each kind of fault is noticed."""
    from tests.fuzz.child import find_faults, new_files

    assert find_faults(0, "fine\n", "warning: x\n") == []
    assert find_faults(1, "", "error: x\n") == []
    assert find_faults(1, "", "fault: x\nfault: y\n") == []
    assert find_faults(1, "", "") == ["0 lines of errors"]
    assert find_faults(2, "", "error: x\nerror: y\n") == ["2 lines of errors"]
    assert "exit code 139" in find_faults(139, "", "error: x\n")
    assert "a traceback" in find_faults(1, "", "error: x\nTraceback (most recent call last):\n")
    assert len(find_faults(3, "a\x1b[2J\n", "odd\nerror: \x9b\n")) == 2
    work = tmp_path / "a" / "b" / "c" / "case"
    (work / "out").mkdir(parents=True)
    (work / "out" / "log").touch()
    assert new_files(work, base) == []
    for name in ("case/evil", "evil", "../../../evil"):
        path = work.parent / name
        path.touch()
        assert new_files(work, base) == [str(path.resolve())]
        os.unlink(path)
