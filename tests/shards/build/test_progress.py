"""What a build shows: rates, bytes, refusals by kind; live on a terminal, plain elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from shards import Report
from shards.build.progress import BuildProgress, human_bytes, print_report, verify_with_progress

GOOD = {
    "status": "ok",
    "bytes_in": 2_000_000,
    "bytes": 3_000_000,
    "frames": 30,
    "source": "a.mp4",
    "key": "a",
    "labels": [0],
}
BAD = {
    "status": "refused",
    "kind": "corrupt",
    "reason": "frame 3",
    "bytes_in": 1,
    "source": "b.mp4",
}


SIZES = [
    (0, "0 B"),
    (999, "999 B"),
    (1_500, "1.5 kB"),
    (999_600, "1 MB"),
    (7.2e11, "720 GB"),
    (2e12, "2 TB"),
]


@pytest.mark.parametrize(("count", "text"), SIZES)
def test_bytes_are_printed_in_decimal_units(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_verdicts_are_counted_and_shown(terminal, monkeypatch):
    monkeypatch.setattr("shards.build.progress.PRINT_EVERY", -1.0)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=200)
    with BuildProgress(console) as progress:
        progress.watcher.begin(1, 3)
        for verdict in (GOOD, BAD, BAD):
            progress.watcher.verdict(verdict)
    assert "not used: 2 corrupt" in progress.text()
    assert "in 2 MB, out 3 MB" in progress.text()
    assert "videos/s" in screen.getvalue()
    assert ("s left" in screen.getvalue()) != terminal
    assert "sharding" in screen.getvalue()


def test_the_report_names_refusals_and_how_to_go_on():
    lines: list[str] = []
    late = BAD | {"status": "deferred", "kind": "time", "reason": "slow", "source": "c.mp4"}
    report = Report(Path("x/train"), [GOOD, BAD, late], complete=False)
    print_report(report, lines.append)
    text = "\n".join(lines)
    assert "1 samples, 30 frames, 3 MB" in text
    assert "b.mp4: corrupt: frame 3" in text
    assert "try the deferred sources again" in text
    assert "tools/shard.py merge x/train" in text
    assert report.exit_code == 3


def test_samples_without_a_label_are_reported_where_others_have_one():
    lines: list[str] = []
    unlabelled = [GOOD | {"labels": [], "key": key} for key in "bcd"]
    print_report(Report(Path("x"), [GOOD, *unlabelled], complete=False), lines.append, max_listed=2)
    [line] = [line for line in lines if line.startswith("warning")]
    assert "3 of 4 samples without a label (b, c, ...)" in line
    lines.clear()
    print_report(Report(Path("x"), unlabelled, complete=False), lines.append)  # a test set
    assert not [line for line in lines if "warning" in line]


def test_a_long_report_is_cut_short():
    lines: list[str] = []
    report = Report(Path("x"), [GOOD] + [BAD] * 50, complete=False)
    print_report(report, lines.append, max_listed=5)
    assert "  ... 45 more" in lines


@pytest.mark.parametrize("terminal", [True, False])
def test_verifying_shows_how_far_it_is(small_set, terminal):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100)
    assert verify_with_progress(small_set.root / "train", 1, console) == []
    assert ("verifying" in screen.getvalue()) == terminal
