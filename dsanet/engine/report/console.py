"""Progress: a live panel on a terminal, plain lines elsewhere, and always the run's log file."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from dsanet.engine.checkpoint import naming


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def format_record(record: dict[str, Any]) -> str:
    """One plain line of a record of metrics.jsonl."""
    kind = record["kind"]
    if kind == "train":
        return (
            f"epoch {record['epoch']:.2f}/{record['epochs']}  step {record['step']}  "
            f"loss {record['loss']:.4f}  top1 {100 * record['top1']:.1f}  lr {record['lr']:.2e}  "
            f"{record['videos_per_second']:.1f} videos/s  step {record['step_ms']:.0f} ms  "
            f"data wait {record['wait_share']:.1%} ({record['wait_stage']})  "
            f"{_memory(record)}left {_clock(record['eta_s'])}{_replaced(record)}"
        )
    if kind == "epoch":
        return f"epoch {record['epoch']}: {record['verdict']}"
    scores = "  ".join(
        f"{key} {100 * record[key]:.2f}" for key in ("top1", "top5", "map") if key in record
    )
    return f"{kind} after epoch {record['epoch']:.2f}: {scores}  ({record['videos']} videos)"


def _memory(record: dict[str, Any]) -> str:
    return f"GPU {record['memory_gib']:.1f} GiB  " if record.get("memory_gib") else ""


def _replaced(record: dict[str, Any]) -> str:
    return f"  {record['replaced']} bad samples replaced" if record.get("replaced") else ""


class Console:
    """The voice of a run; only the main process has one that speaks.

    Lines go to the terminal and to `log`; records refresh the panel, or become lines.
    """

    def __init__(self, log: Path | None = None, *, title: str = "", speak: bool = True) -> None:
        self.log = log
        self.speak = speak
        self.title = title
        self.rich = RichConsole(file=sys.stdout, highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.latest: dict[str, dict[str, Any]] = {}
        self.goal = self.done = 0
        self.lines = True
        self.began = 0.0

    def __enter__(self) -> Console:
        if self.speak and self.rich.is_terminal:
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

    def say(self, text: str) -> None:
        """One line, on screen and in the log."""
        if not self.speak:
            return
        self.rich.print(text, markup=False)
        self._write(text)

    def show(self, record: dict[str, Any]) -> None:
        """A record of metrics.jsonl."""
        if not self.speak:
            return
        self.latest[record["kind"]] = record
        text = format_record(record)
        if self.live is None or record["kind"] != "train":
            self.rich.print(text, markup=False)
        self._write(text)

    def begin(self, videos: int, *, lines: bool = True) -> None:
        """Start to count videos towards a goal, in the panel and perhaps in lines; 0 ends it."""
        self.goal, self.done, self.began, self.lines = videos, 0, time.monotonic(), lines

    def tick(self, videos: int) -> None:
        """So many videos more; a line at every tenth of the way where there is no panel."""
        tenth = 10 * self.done // self.goal if self.goal else 0
        self.done = min(self.done + videos, self.goal)
        if self.goal and self.lines and self.live is None and 10 * self.done // self.goal > tenth:
            self.say(self._count())

    def _count(self) -> str:
        speed = self.done / max(time.monotonic() - self.began, 1e-9)
        left = _clock((self.goal - self.done) / speed) if self.done else "?"
        return f"{self.done} of {self.goal} videos  {speed:.1f} videos/s  left {left}"

    def _write(self, text: str) -> None:
        if self.log is not None and self.log.parent.is_dir():
            with naming(self.log), self.log.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def _panel(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        record = self.latest.get("train")
        if self.goal and record is None:
            table.add_row(self._count())
            table.add_row(ProgressBar(total=self.goal, completed=self.done, width=60))
            return Panel(table, title=self.title, expand=False)
        if record is None:
            table.add_row("preparing the first step ...")
            return Panel(table, title=self.title)
        for name, value in _panel_rows(record, self.latest.get("val")):
            table.add_row(f"[dim]{name}[/dim]", value)
        if self.goal:
            table.add_row("[dim]validating[/dim]", self._count())
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
        ("data wait", f"{record['wait_share']:.1%} of the step   loader: {stages}"),
    ]
    if record.get("memory_gib"):
        use = "".join(
            f"   {name} {record[key]:.0f} %"
            for name, key in (("busy", "gpu_use"), ("NVDEC", "decoder_use"), ("JPEG", "jpeg_use"))
            if record.get(key) is not None
        )
        rows.append(("GPU", f"{record['memory_gib']:.1f} GiB{use}"))
    if record.get("replaced"):
        rows.append(("quarantined", f"{record['replaced']} samples"))
    if val:
        rows.append(("validation", f"top-1 {100 * val['top1']:.2f} % after {val['epoch']:.0f}"))
    rows.append(("time left", _clock(record["eta_s"])))
    return rows
