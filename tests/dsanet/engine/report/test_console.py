"""What the console prints, on a terminal and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from dsanet.engine.report.console import Console, format_record, score_lines

TRAIN = {
    "kind": "train", "samples": 960, "step": 10, "epoch": 0.5, "epochs": 4, "loss": 1.25,
    "top1": 0.5, "lr": 0.015, "grad_norm": 1.0, "videos_per_second": 320.0, "step_ms": 300.0,
    "wait_ms": 30.0, "wait_share": 0.1, "wait_stage": "decode",
    "wait_by_stage_ms": {"read": 5.0, "decode": 40.0}, "replaced": 2, "eta_s": 3661.0,
    "memory_gib": 21.3, "gpu_use": 97.0, "jpeg_use": 40.0,
}  # fmt: skip
VAL = {"kind": "val", "epoch": 1.0, "samples": 1920, "top1": 0.75, "top5": 1.0, "videos": 8}


def test_the_line_of_a_record_holds_its_figures() -> None:
    line = format_record(TRAIN)
    for part in ("0.50/4", "loss 1.2500", "top1 50.0", "320.0 videos/s", "10.0% (decode)",
                 "1:01:01", "21.3 GiB", "2 bad samples"):  # fmt: skip
        assert part in line
    assert "top1 75.00" in format_record(VAL)


def test_lines_go_to_the_log_and_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(tmp_path / "log") as console:
        console.print("hello [world]")
        console.show_record(TRAIN)
    assert "hello [world]\n" in capsys.readouterr().out
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_other_processes_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Console(tmp_path / "log", enabled=False) as console:
        console.print("hello")
        console.show_record(TRAIN)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "log").exists()


def test_the_panel_on_a_terminal_shows_the_same_figures() -> None:
    console = Console()
    out = io.StringIO()
    console.rich = RichConsole(file=out, force_terminal=True, width=120)
    with console:
        console.show_record(TRAIN)
        console.show_record(VAL)
        assert console.live is not None
        console.live.refresh()
    text = out.getvalue()
    for part in ("replaced", "2 bad samples", "1:01:01", "JPEG 40 %", "decode 40 ms", "75.00 %"):
        assert part in text


def test_progress_of_a_validation_is_shown_only_in_the_panel(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = Console()
    plain.start_progress(10, lines=False)
    plain.advance(10)
    assert capsys.readouterr().out == ""
    console = Console()
    out = io.StringIO()
    console.rich = RichConsole(file=out, force_terminal=True, width=120)
    with console:
        console.show_record(TRAIN)
        console.start_progress(40, lines=False)
        console.advance(10)
        assert console.live is not None
        console.live.refresh()
        shown = out.getvalue()
        assert "10 of 40 videos" in shown
        assert "0.50 of 4" in shown  # beside the run's own progress
        out.truncate(0)
        console.start_progress(0)
        console.live.refresh()
        assert "of 40 videos" not in out.getvalue()


def test_an_evaluation_prints_a_line_at_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.start_progress(100)
    for _ in range(30):
        console.advance(4)  # the last batches are partly padding
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("100 of 100 videos")


def test_the_accuracies_of_videos_are_the_last_line_of_an_evaluation() -> None:
    metrics = {
        "top1": 0.5, "top5": 1.0, "map": 0.6, "videos": 8, "labelled": 8, "missing": [],
        "top1_interval": (0.2, 0.8), "top5_interval": (0.7, 1.0), "clip_top1": 0.4,
        "clip_top5": 0.9, "mean_class_top1": 0.45, "protocol": {"description": "paper: 8 clips"},
    }  # fmt: skip
    first, *middle, last = score_lines(metrics, "RUN/eval")
    assert first == "protocol: paper: 8 clips"
    assert last == "top1 50.00  top5 100.00  map 60.00  (8 videos)  -> RUN/eval"
    text = "\n".join(middle)
    for part in ("clip_top1 40.00", "top1 20.00 to 80.00", "mean over classes: top1 45.00"):
        assert part in text
