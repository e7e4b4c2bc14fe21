"""The report of a benchmark: rows of figures with the machine, versions and command behind them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dsanet.engine.environment import versions
from dsanet.errors import UserError


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpus() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()


def environment() -> dict[str, Any]:
    """Machine, versions and command of this run, which every published figure needs."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python", *sys.argv]),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": _gpus(),
        "versions": versions(),
    }


def _width() -> int | None:
    """Columns to print: those of the terminal (None), or enough for a log file."""
    return None if sys.stdout.isatty() else 150


@dataclass
class Report:
    """Rows of one benchmark.

    Each row is printed when it is added, and the JSON file is rewritten, so that an interrupted run
    keeps the rows it has. failures: parts that raised.
    """

    title: str
    path: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(width=_width()))
    environment: dict[str, Any] = field(default_factory=environment)
    failures: int = 0

    def __post_init__(self) -> None:
        self.write()  # fails before the benchmark runs if the path cannot be written

    def add(self, **row: Any) -> None:
        """Record and print one row; values are numbers, text, or None for "not measured"."""
        self.rows.append(row)
        self._print(row)
        self.write()

    def replace(self, rows: list[dict[str, Any]], first: int = 0) -> None:
        """Record new values for all rows from number `first` on, and print those that changed."""
        before = self.rows[first:]
        self.rows[first:] = rows
        for row in rows:
            if row not in before:
                self._print(row)
        self.write()

    def attempt(self, labels: dict[str, Any], function: Callable[..., None], *given: Any) -> bool:
        """Call a part of the benchmark; one that raises becomes a row, and the others go on.

        What a user can fix is raised. labels: columns of that row. Returns whether it succeeded.
        """
        try:
            function(*given)
        except UserError:
            raise
        except Exception as error:
            traceback.print_exc()
            self.failures += 1
            self.add(**labels, failed=failure(error))
            return False
        return True

    def _print(self, row: dict[str, Any]) -> None:
        cells = "  ".join(f"{name}={_cell(value)}" for name, value in row.items())
        self.console.print(f"[dim]{self.title}[/dim]  {cells}", highlight=False, soft_wrap=True)

    def write(self) -> None:
        """Write the JSON atomically."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"title": self.title, **self.environment, "rows": self.rows}
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def table(self) -> None:
        """Print the rows as tables, one for each set of columns."""
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row), []).append(row)
        for names, rows in groups.items():
            table = Table(*names, title=self.title)
            for row in rows:
                table.add_row(*(_cell(row[name]) for name in names))
            self.console.print(table)


@dataclass
class Labelled:
    """A report whose rows all get these labels, for a benchmark that is run several times."""

    report: Report
    labels: dict[str, Any]

    def add(self, **row: Any) -> None:
        """See `Report.add`."""
        self.report.add(**self.labels, **row)

    def replace(self, rows: list[dict[str, Any]], first: int = 0) -> None:
        """See `Report.replace`."""
        self.report.replace([self.labels | row for row in rows], first)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of the report."""
        return self.report.rows


def failure(error: Exception) -> str:
    """One line about an error, for a row."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _cell(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
