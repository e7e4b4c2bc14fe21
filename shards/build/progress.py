"""Progress of a build and its final report: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dsanet.errors import printable
from shards.build.split import Report, Watcher
from shards.build.verify import verify_split
from shards.format.manifest import read_manifest

MAX_SHOWN = 300  # characters of a path in the report
PRINT_EVERY = 10.0  # seconds between two lines where there is no terminal


def human_bytes(count: float) -> str:
    """Format a number of bytes with three significant digits and a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # larger numbers would be printed as 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class BuildProgress:
    """Counts and shows the verdicts of a build; a context manager around it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.total = self.done = self.bytes_in = self.bytes_out = 0
        self.bad: Counter[str] = Counter()
        self._last_print = self.started
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
        """The callbacks to pass to `build_split`."""
        return Watcher(begin=self._begin, verdict=self._verdict)

    def _begin(self, tars: int, sources: int) -> None:
        self.total = sources
        if self._bar:
            self._bar.update(self._task, total=sources)
        else:
            self.console.print(
                f"sharding {_plural(sources, 'video')} into {_plural(tars, 'tar')}", highlight=False
            )

    def _verdict(self, verdict: Mapping[str, Any]) -> None:
        self.done += 1
        self.bytes_in += verdict.get("bytes_in", 0)
        self.bytes_out += verdict.get("bytes", 0)
        if verdict["status"] != "ok":
            self.bad[verdict["kind"]] += 1
        if self._bar:
            self._bar.update(self._task, completed=self.done, text=self.text())
        elif time.monotonic() - self._last_print > PRINT_EVERY:
            self._last_print = time.monotonic()
            self.console.print(
                f"{self.done}/{self.total} {self.text(with_time_left=True)}", highlight=False
            )

    def text(self, with_time_left: bool = False) -> str:
        """Return rate, bytes in and out, and the unused videos by kind."""
        rate = self.done / max(time.monotonic() - self.started, 1e-3)
        parts = [
            f"{rate:.1f} videos/s",
            f"in {human_bytes(self.bytes_in)}",
            f"out {human_bytes(self.bytes_out)}",
        ]
        if with_time_left:
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


def verify_with_progress(folder: Path, workers: int, console: Console) -> list[str]:
    """Run `verify_split` with a progress bar on a terminal. Raises ShardError."""
    with Progress(console=console, disable=not console.is_terminal) as bar:
        total = read_manifest(folder)["counts"]["samples"]
        task = bar.add_task(escape(printable(f"verifying {folder.name}")), total=total)
        return verify_split(folder, workers, lambda samples: bar.advance(task, samples))


def print_report(report: Report, show: Callable[[str], None], max_listed: int = 20) -> None:
    """Call `show` with each line of the report: counts, unused videos, and the files to look at."""
    frames = sum(verdict["frames"] for verdict in report.with_status("ok"))
    size = human_bytes(sum(verdict["bytes"] for verdict in report.with_status("ok")))
    show(f"{report.folder}: {report.ok} samples, {frames} frames, {size} in {report.seconds:.1f} s")
    for verdict in report.refused[:max_listed]:
        show(f"  {verdict['source'][:MAX_SHOWN]}: {verdict['kind']}: {verdict['reason']}")
    if len(report.refused) > max_listed:
        show(f"  ... {len(report.refused) - max_listed} more")
    if report.refused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.most_common())
        show(f"{len(report.refused)} of {len(report.verdicts)} sources not used: {kinds}")
    if unlabelled := report.partly_unlabelled:
        keys = ", ".join(verdict["key"] for verdict in unlabelled[:max_listed])
        more = ", ..." if len(unlabelled) > max_listed else ""
        show(
            f"warning: {len(unlabelled)} of {_plural(report.ok, 'sample')} without a label ({keys}"
            f"{more}): training refuses this split; add their labels to the list, or take them out "
            "of it, and shard it again"
        )
    if report.with_status("deferred"):
        show("run the same command again to try the deferred sources again")
    if report.complete:
        manifest = read_manifest(report.folder)
        listed = sum(manifest["counts"]["sources"].values())
        show(f"all verdicts: {report.folder}/sources.jsonl; counts per class: classes.csv")
        show(
            f"{manifest['counts']['samples']} of {listed} videos are in the split: effective.csv, "
            f"SHA-256 {manifest['effective_sha256']}"
        )
    else:
        show(
            "not finished: other tasks have tars to write; then run "
            f"tools/shard.py merge {report.folder}"
        )


def print_side_files(
    folder: Path, manifest: Mapping[str, Any], show: Callable[[str], None]
) -> None:
    """Call `show` with what the side files of a split were made of, by their manifest."""
    counts = manifest["counts"]
    show(f"{folder}: {counts['samples']} samples, {counts['frames']} frames")
    if manifest["version"] == 1:
        show(
            "its tars have format version 1, which HuggingFace datasets cannot read: "
            f"tools/shard.py reindex --upgrade {folder} rewrites them"
        )


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
