"""What a build shows while it goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shards.build.split import Report, Watcher
from shards.build.verify import verify_split
from shards.format.manifest import read_manifest

PLAIN_SECONDS = 10.0


def human_bytes(count: float) -> str:
    """A number of bytes with three significant digits and a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # what is more would be rounded to 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class BuildProgress:
    """Counts verdicts and shows them; use it as a context manager around the build."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.total = self.done = self.bytes_in = self.bytes_out = 0
        self.bad: Counter[str] = Counter()
        self._shown = self.started
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = ("{task.percentage:>3.0f}%", "{task.fields[text]}")
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                *map(TextColumn, columns),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("sharding", total=None, text="")

    @property
    def watcher(self) -> Watcher:
        """What `build_split` is to tell."""
        return Watcher(begin=self._begin, verdict=self._verdict)

    def _begin(self, tars: int, sources: int) -> None:
        self.total = sources
        if self._bar:
            self._bar.update(self._task, total=sources)
        else:
            self.console.print(
                f"sharding {_count(sources, 'video')} into {_count(tars, 'tar')}", highlight=False
            )

    def _verdict(self, verdict: Mapping[str, Any]) -> None:
        self.done += 1
        self.bytes_in += verdict.get("bytes_in", 0)
        self.bytes_out += verdict.get("bytes", 0)
        if verdict["status"] != "ok":
            self.bad[verdict["kind"]] += 1
        if self._bar:
            self._bar.update(self._task, completed=self.done, text=self.text())
        elif time.monotonic() - self._shown > PLAIN_SECONDS:
            self._shown = time.monotonic()
            self.console.print(f"{self.done}/{self.total} {self.text(left=True)}", highlight=False)

    def text(self, left: bool = False) -> str:
        """Rate, bytes in and out, refusals by kind, and, if asked, the time left."""
        rate = self.done / max(time.monotonic() - self.started, 1e-3)
        parts = [
            f"{rate:.1f} videos/s",
            f"in {human_bytes(self.bytes_in)}",
            f"out {human_bytes(self.bytes_out)}",
        ]
        if left:
            parts.append(f"{(self.total - self.done) / max(rate, 1e-3):.0f} s left")
        if self.bad:
            parts.append("not used: " + ", ".join(f"{n} {kind}" for kind, n in self.bad.items()))
        return ", ".join(parts)

    def __enter__(self) -> BuildProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()


def verify_shown(folder: Path, workers: int, console: Console) -> list[str]:
    """`verify_split`, with a bar of samples read on a terminal. Raises ShardError."""
    with Progress(console=console, disable=not console.is_terminal) as bar:
        total = read_manifest(folder)["counts"]["samples"]
        task = bar.add_task(f"verifying {folder.name}", total=total)
        return verify_split(folder, workers, lambda samples: bar.advance(task, samples))


def print_report(report: Report, show: Callable[[str], None], most: int = 20) -> None:
    """Tell what became of the sources: counts, the first refusals, and where the rest is."""
    frames = sum(verdict["frames"] for verdict in report.of("ok"))
    size = human_bytes(sum(verdict["bytes"] for verdict in report.of("ok")))
    show(f"{report.folder}: {report.ok} samples, {frames} frames, {size} in {report.seconds:.1f} s")
    for verdict in report.refused[:most]:
        show(f"  {verdict['source']}: {verdict['kind']}: {verdict['reason']}")
    if len(report.refused) > most:
        show(f"  ... {len(report.refused) - most} more")
    if report.refused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.most_common())
        show(f"{len(report.refused)} of {len(report.verdicts)} sources not used: {kinds}")
    if report.of("deferred"):
        show("deferred sources are tried again when the same command is run again")
    if report.complete:
        manifest = read_manifest(report.folder)
        listed = sum(manifest["counts"]["sources"].values())
        show(f"verdicts in {report.folder}/sources.jsonl, per class in classes.csv")
        show(
            f"effective list: {manifest['counts']['samples']} of {listed} videos, effective.csv, "
            f"SHA-256 {manifest['effective_sha256']}"
        )
    else:
        show(f"other tasks have tars to write; then: tools/shard.py merge {report.folder}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
