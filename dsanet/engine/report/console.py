"""What a run prints: a live panel on a terminal, plain lines elsewhere; all lines go to a log."""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dsanet.errors import printable
from shards.format.files import naming


def format_duration(seconds: float) -> str:
    """Seconds as text, rounded up: 3660.2 becomes "1:01:01"."""
    return str(datetime.timedelta(seconds=math.ceil(seconds)))


def format_record(record: dict[str, Any]) -> str:
    """A record of metrics.jsonl as one line of text."""
    kind = record["kind"]
    if kind == "train":
        return (
            f"epoch {record['epoch']:.2f}/{record['epochs']}  step {record['step']}  "
            f"loss {record['loss']:.4f}  top1 {100 * record['top1']:.1f}  lr {record['lr']:.2e}  "
            f"{record['videos_per_second']:.1f} videos/s  step {record['step_ms']:.0f} ms  "
            f"data wait {record['wait_share']:.1%} ({record['wait_stage']}){_worst(record)}  "
            f"{_memory(record)}left {format_duration(record['eta_s'])}{_replaced(record)}"
        )
    if kind == "epoch":
        return f"epoch {record['epoch']}: {record['verdict']}"
    return f"{kind} after epoch {record['epoch']:.2f}: {format_metrics(record)}"


def format_metrics(metrics: dict[str, Any]) -> str:
    """The accuracies of a record or of metrics.json as text, with the videos they are of."""
    videos, missing = metrics["videos"], len(metrics.get("missing", ()))
    labelled = metrics.get("labelled", videos)
    unreadable = f", {missing} unreadable" if missing else ""
    if not labelled:
        reason = "no labels, so no accuracies" if videos else "no video could be read"
        return f"{reason}  ({videos} videos scored{unreadable})"
    accuracies = "  ".join(
        f"{key} {100 * metrics[key]:.2f}" for key in ("top1", "top5", "map") if key in metrics
    )
    counted = (
        f"{labelled} of {videos} videos have labels" if labelled < videos else f"{videos} videos"
    )
    return f"{accuracies}  ({counted}{unreadable})"


def score_lines(metrics: dict[str, Any], out: str) -> list[str]:
    """The scores of an evaluation as text: protocol, of inputs, intervals, and last of videos.

    metrics: content of metrics.json; out: where it was written.
    """
    lines = [f"protocol: {metrics['protocol']['description']}"]
    if metrics["clip_top1"] is not None:
        one, five = (f"{100 * metrics[f'clip_top{k}']:.2f}" for k in (1, 5))
        lines.append(f"clip accuracy, of single inputs: clip_top1 {one}  clip_top5 {five}")
    if metrics["top1"] is not None:
        lines.append(f"mean over classes: top1 {100 * metrics['mean_class_top1']:.2f}")
        intervals = [
            f"top{k} {100 * low:.2f} to {100 * high:.2f}"
            for k in (1, 5)
            for low, high in [metrics[f"top{k}_interval"]]
        ]
        lines.append(f"95 % interval: {'  '.join(intervals)}")
    return [*lines, f"{format_metrics(metrics)}  -> {out}"]


def _worst(record: dict[str, Any]) -> str:
    """The process that waits most for data, if it is not rank 0."""
    rank = record.get("wait_rank", 0)
    return f", {record['wait_share_max']:.1%} on rank {rank}" if rank else ""


def _memory(record: dict[str, Any]) -> str:
    return f"GPU {record['memory_gib']:.1f} GiB  " if record.get("memory_gib") else ""


def _replaced(record: dict[str, Any]) -> str:
    return f"  {record['replaced']} bad samples replaced" if record.get("replaced") else ""


class Console:
    """Prints lines and progress to the terminal and appends the lines to a log file.

    Use it as a context: on a terminal a live panel is shown inside it.

    log: the file, or None; its folder must exist by the first line, else nothing is logged.
    enabled: False on all processes but rank 0, and the console then prints and logs nothing.
    """

    def __init__(self, log: Path | None = None, *, title: str = "", enabled: bool = True) -> None:
        self.log = log
        self.enabled = enabled
        self.title = Text(printable(title))  # a plain str would be read as rich's markup
        self.rich = RichConsole(file=sys.stdout, highlight=False, soft_wrap=True, emoji=False)
        self.live: Live | None = None
        self.latest: dict[str, dict[str, Any]] = {}
        self.total = self.done = 0
        self.lines = True
        self.started = 0.0

    def __enter__(self) -> Console:
        if self.enabled and self.rich.is_terminal:
            self.live = Live(
                console=self.rich, get_renderable=self._panel, refresh_per_second=4, transient=True
            )
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    @contextlib.contextmanager
    def errors_logged(self) -> Iterator[None]:
        """Log an error that is raised inside, which nobody sees where standard error is closed."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(OSError):  # the error may be that of the log's disk
                if self.enabled:
                    self._write(f"error: {str(error).strip() or type(error).__name__}")
            raise

    def print(self, text: str) -> None:
        """Print a line, and log it; control characters in it are escaped."""
        if not self.enabled:
            return
        self.rich.print(printable(text), markup=False)
        self._write(text)

    def show_record(self, record: dict[str, Any]) -> None:
        """Log a record of metrics.jsonl, and show it in the panel or as a line."""
        if not self.enabled:
            return
        self.latest[record["kind"]] = record
        text = format_record(record)
        if self.live is None or record["kind"] != "train":
            self.rich.print(printable(text), markup=False)
        self._write(text)

    def start_progress(self, videos: int, *, lines: bool = True) -> None:
        """Start to count videos up to this number; 0 ends it.

        lines: where there is no panel, print a line at every tenth of the way.
        """
        self.total, self.done, self.lines = videos, 0, lines
        self.started = time.monotonic()

    def advance(self, videos: int) -> None:
        """Count this many more videos as done."""
        tenth = 10 * self.done // self.total if self.total else 0
        self.done = min(self.done + videos, self.total)
        if self.total and self.lines and self.live is None and 10 * self.done // self.total > tenth:
            self.print(self._progress_line())

    def _progress_line(self) -> str:
        speed = self.done / max(time.monotonic() - self.started, 1e-9)
        left = format_duration((self.total - self.done) / speed) if self.done else "?"
        return f"{self.done} of {self.total} videos  {speed:.1f} videos/s  left {left}"

    def _write(self, text: str) -> None:
        if self.log is not None and self.log.parent.is_dir():
            with (
                naming(self.log),
                self.log.open("a", encoding="utf-8", errors="backslashreplace") as file,
            ):
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {printable(text)}\n")

    def _panel(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        record = self.latest.get("train")
        if self.total and record is None:
            table.add_row(self._progress_line())
            table.add_row(ProgressBar(total=self.total, completed=self.done, width=60))
            return Panel(table, title=self.title, expand=False)
        if record is None:
            table.add_row("waiting for the first record ...")
            return Panel(table, title=self.title)
        for name, value in _panel_rows(record, self.latest.get("val")):
            table.add_row(f"[dim]{name}[/dim]", Text(printable(value)))
        if self.total:
            table.add_row("[dim]validating[/dim]", self._progress_line())
        bar = ProgressBar(total=record["epochs"], completed=record["epoch"], width=40)
        table.add_row("[dim]run[/dim]", bar)
        return Panel(table, title=self.title, expand=False)


def _panel_rows(record: dict[str, Any], val: dict[str, Any] | None) -> list[tuple[str, str]]:
    stages = "  ".join(f"{name} {ms:.0f} ms" for name, ms in record["wait_by_stage_ms"].items())
    rows = [
        ("epoch", f"{record['epoch']:.2f} of {record['epochs']}   step {record['step']}"),
        ("loss", f"{record['loss']:.4f}   top-1 {100 * record['top1']:.1f} %"),
        ("learning rate", f"{record['lr']:.3e}"),
        (
            "speed",
            f"{record['videos_per_second']:.1f} videos/s   {record['step_ms']:.0f} ms a step",
        ),
        (
            "data wait",
            f"{record['wait_share']:.1%} of the step{_worst(record)}   loader by stage: {stages}",
        ),
    ]
    if record.get("memory_gib"):
        use = "".join(
            f"   {name} {record[key]:.0f} %"
            for name, key in (("busy", "gpu_use"), ("NVDEC", "decoder_use"), ("JPEG", "jpeg_use"))
            if record.get(key) is not None
        )
        rows.append(("GPU", f"{record['memory_gib']:.1f} GiB{use}"))
    if record.get("replaced"):
        rows.append(("replaced", f"{record['replaced']} bad samples"))
    if val:
        rows.append(("validation", f"top-1 {100 * val['top1']:.2f} % after {val['epoch']:.0f}"))
    rows.append(("time left", format_duration(record["eta_s"])))
    return rows
