"""Runs the parts one after another, and writes what came of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from gpu.goals import goals_table
from gpu.plan import PARTS, Part
from gpu.processes import Ended, run_limited

SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"
LEAST_SECONDS = 8.0  # to start a part at all
FAILED = ("failed", "stopped at its limit")


class Check:
    """One run of the check: `folder` gets the results, `scratch` what the parts share."""

    def __init__(self, folder: Path, scratch: Path, seconds: float, parts: Sequence[str]) -> None:
        self.folder, self.scratch = folder, scratch
        self.parts = [part for part in PARTS if part.name in parts]
        self.start, self.end = time.monotonic(), time.monotonic() + seconds
        self.states: list[dict[str, Any]] = []

    def run(self) -> int:
        """Run all parts; returns the exit code."""
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            for part in self.parts:
                self.states.append(self.run_one(part))
                self.write_summary()
        finally:  # also when it is interrupted
            self.write_summary()
            signal.signal(signal.SIGTERM, before)
        self.print_summary()
        failed = [state["part"] for state in self.states if state["state"] in FAILED]
        if failed:
            names = ", ".join(failed)
            print(f"error: failed: {names}; see their JSON in {self.folder}", file=sys.stderr)
        return 1 if failed else 0

    def run_one(self, part: Part) -> dict[str, Any]:
        """Run one part in its process; returns its state."""
        left = self.end - time.monotonic()
        if left < LEAST_SECONDS:
            return {"part": part.name, "state": "not run: no time left"}
        seconds = min(part.seconds, left)
        print(f"== {part.name}: {part.text} (at most {seconds:.0f} s)", flush=True)
        ended = run_limited(
            self.command(part, seconds), seconds, self.scratch / "stderr.log", self.environment()
        )
        state = {"part": part.name, "seconds": round(ended.seconds, 1), "exit": ended.code}
        state["state"] = state_of(ended, self.rows(part.name), cut=seconds < part.seconds)
        print(f"== {part.name}: {state['state']} after {ended.seconds:.0f} s", flush=True)
        if state["state"] in FAILED and ended.code != 0:
            print("\n".join(ended.output.splitlines()[-5:]), flush=True)
        update(self.path(part.name), **state, output=ended.output)
        return state

    def command(self, part: Part, seconds: float) -> list[str]:
        words = [sys.executable, str(SCRIPT), "--run-part", part.name]
        words += ["--json", str(self.path(part.name).parent)]
        return [*words, "--scratch", str(self.scratch), "--seconds", f"{seconds:.1f}"]

    def environment(self) -> dict[str, str]:
        """Caches of the compiler that are empty at the start and shared by the parts."""
        cache = str(self.scratch / "inductor")
        return os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "PYTHONUNBUFFERED": "1"}

    def path(self, name: str) -> Path:
        """File of a part; what the part `machine` finds goes into the summary."""
        return (self.scratch if name == "machine" else self.folder) / f"{name}.json"

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Rows that a part has written so far."""
        return list(read(self.path(name)).get("rows", []))

    def write_summary(self) -> None:
        results = {part.name: self.rows(part.name) for part in self.parts}
        machine = read(self.path("machine"))
        toy = any(read(self.path(part.name)).get("toy") for part in self.parts)
        content = {
            "title": "summary",
            "toy": toy,
            "seconds": round(time.monotonic() - self.start, 1),
            "parts": self.states,
            "goals": goals_table(results, toy),
            "failed_checks": failures(results),
            "machine": machine,
        }
        write(self.folder / "summary.json", content)

    def print_summary(self) -> None:
        summary = read(self.folder / "summary.json")
        for row in summary["failed_checks"]:
            print("FAILED " + "  ".join(f"{name}={text}" for name, text in row.items()))
        print(f"{'goal':<30}{'wanted':>8}{'measured':>10}  {'unit':<10} {'verdict':<13} next")
        for row in summary["goals"]:
            found = "-" if row["measured"] is None else f"{row['measured']:.4g}"
            print(f"{row['goal']:<30}{row['wanted']:>8g}{found:>10}  {row['unit']:<10} "
                  f"{row['verdict']:<13} {row['next']}")  # fmt: skip
        states = ", ".join(f"{state['part']} {state['state']}" for state in self.states)
        print(f"{states}; {summary['seconds']:.0f} s; results in {self.folder}")


def state_of(ended: Ended, rows: list[dict[str, Any]], *, cut: bool) -> str:
    """What came of a part; cut: its limit was the rest of the time of the whole check."""
    if ended.code is None:
        return "cut: no time left" if cut else "stopped at its limit"
    return "failed" if ended.code or any(is_failure(row) for row in rows) else "done"


def is_failure(row: dict[str, Any]) -> bool:
    """Whether a row says that something raised, or that a check did not pass."""
    return "failed" in row or row.get("passed") is False


def failures(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of all parts that failed."""
    return [
        {"part": name, **row} for name, rows in results.items() for row in rows if is_failure(row)
    ]


def read(path: Path) -> dict[str, Any]:
    """Contents of a JSON file; empty where there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def update(path: Path, **content: Any) -> None:
    """Add to a JSON file, which need not exist."""
    write(path, read(path) | content)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
