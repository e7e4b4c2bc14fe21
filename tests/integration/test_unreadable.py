"""Videos that cannot be read, or have no label: named with the reason, and not counted."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import Source, build_split, open_split
from tests.conftest import CLASSES
from tests.integration.scripts import eval_here, records, run_script, train_here
from tests.pipelines.damage import overwrite, zeroed

Damaged = Callable[..., tuple[Path, list[str]]]


@pytest.fixture
def damaged(small_shards: Path, tmp_path: Path) -> Damaged:
    """Copies the shards and damages videos of `val`; the copy and the keys of the videos."""

    def make(*samples: int) -> tuple[Path, list[str]]:
        copy = shutil.copytree(small_shards, tmp_path / "shards")
        split = open_split(copy, "val")
        for sample in samples:
            overwrite(split, sample, zeroed)
        return copy, [split.key(sample) for sample in samples]

    return make


def quarantined(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("processes", [1, 2])
def test_validation_reports_unreadable_videos(
    processes: int, damaged: Damaged, tiny: Path, tmp_path: Path
) -> None:
    """In two validations, with a restart between them."""
    shards, keys = damaged(2, 5)
    run = tmp_path / "run"
    words = ("train.py", "--data", shards, "--config", tiny, "--out", run)
    for more in (("--epoch_limit", 1), ("--epoch_limit", 2)):
        done = run_script(*words, *more, processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "WARNING: validation: " in done.stdout
        assert "2 of 8 videos are unreadable" in done.stdout
        for key in keys:
            assert re.search(rf"\b{key}\b.* frame \d+ is corrupt \(CRC32\)", done.stdout)
        assert "(6 videos, 2 unreadable)" in done.stdout
    assert "2 of 8 videos are unreadable" in (run / "log").read_text()
    validations = records(run, "val")
    assert [(v["missing"], v["videos"]) for v in validations] == [(keys, 6)] * 2
    entries = quarantined(run)
    assert [(e["split"], e["id"]) for e in entries] == [("val", 2), ("val", 5)]
    assert all("CRC32" in e["reason"] for e in entries)


@pytest.mark.parametrize("processes", [1, 2])
def test_too_many_unreadable_videos_fail_the_validation(
    processes: int, damaged: Damaged, tiny: Path, tmp_path: Path
) -> None:
    shards, keys = damaged(0, 1, 2, 3, 4, 5)
    run = tmp_path / "run"
    words = ("train.py", "--data", shards, "--config", tiny, "--out", run)
    done = run_script(*words, processes=processes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error: validation: " in done.stderr
    for part in ("6 of 8 videos are unreadable", "CRC32", keys[0], "validation.bad_share 0.01"):
        assert part in done.stderr
    assert not records(run, "val")
    assert not (run / "checkpoints" / "best.json").exists()
    assert [e["id"] for e in quarantined(run)] == list(range(6))
    # The epoch is not lost: the same command goes on with its validation.
    done = run_script(*words, "--validation.bad_share", 0.8, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [r["step"] for r in records(run)] == list(range(1, 11))
    assert [v["videos"] for v in records(run, "val")] == [2, 2]
    assert len(quarantined(run)) == 6


def test_a_validation_without_a_readable_video_is_an_error(
    damaged: Damaged, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards, _ = damaged(*range(8))
    words = ("--data", shards, "--config", tiny, "--out", tmp_path / "run")
    assert train_here(*words, "--validation.bad_share", 1) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert "8 of 8 videos are unreadable" in line


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("reader", ["frames", "webdataset"])
def test_evaluation_reports_the_reasons(
    reader: str, processes: int, damaged: Damaged, trained: Path, tmp_path: Path
) -> None:
    shards, keys = damaged(1, 6)
    words = ("eval.py", "--data", shards, "--checkpoint", trained, "--clips", 2, "--crops", 1)
    more = ("--loader.reader", reader, "--out", tmp_path / "out")
    done = run_script(*words, *more, processes=processes)
    assert done.returncode == 3, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["missing"] == keys
    assert list(metrics["missing_reasons"]) == keys
    for key, reason in metrics["missing_reasons"].items():
        assert key in reason
        assert f"warning: not scored: {reason}" in done.stderr
        assert "CRC32" in reason or reader == "webdataset"


def test_an_evaluation_without_a_readable_video_has_no_accuracy(
    damaged: Damaged, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards, keys = damaged(*range(8))
    words = ("--data", shards, "--checkpoint", trained, "--out", tmp_path)
    assert eval_here(*words, "--clips", 2, "--crops", 1) == 3
    assert "no video could be read  (0 videos scored, 8 unreadable)" in capfd.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["top1"], metrics["missing"]) == (None, keys)


@pytest.fixture
def partly_labelled(small_videos: list[Source], tmp_path: Path) -> Callable[[int], Path]:
    """Builds a set whose `test` split has eight videos, of which so many have labels."""

    def build(labelled: int) -> Path:
        test = [
            Source(s.path, s.label if i < labelled else -1, s.key)
            for i, s in enumerate(small_videos[20:])
        ]
        for name, sources in (("train", small_videos[:20]), ("test", test)):
            assert build_split(sources, tmp_path / "set", name, CLASSES).exit_code == 0
        return tmp_path / "set"

    return build


@pytest.mark.parametrize("labelled", [0, 3])
def test_videos_without_labels_are_scored_but_not_counted(
    labelled: int, partly_labelled: Callable[[int], Path], trained: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--data", partly_labelled(labelled), "--checkpoint", trained, "--split", "test")
    assert eval_here(*words, "--clips", 2, "--crops", 1, "--out", tmp_path / "out") == 0
    line = capfd.readouterr().out.splitlines()[-1]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    table = np.load(tmp_path / "out" / "scores.npz", allow_pickle=False)
    assert table["scores"].shape == (8, 4)
    assert (metrics["videos"], metrics["labelled"]) == (8, labelled)
    if labelled:
        right = table["scores"][:labelled].argmax(1) == table["labels"][:labelled]
        assert metrics["top1"] == pytest.approx(right.mean())
        assert "(3 of 8 videos have labels)" in line
    else:
        assert [metrics[k] for k in ("top1", "top5", "map")] == [None] * 3
        assert line.startswith("no labels, so no accuracies  (8 videos scored)")
        assert "0.00" not in line


def test_validation_on_a_split_without_labels_is_refused(
    partly_labelled: Callable[[int], Path], tiny: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--data", partly_labelled(0), "--config", tiny, "--out", tmp_path / "run")
    assert train_here(*words, "--validation.split", "test") == 2
    [line] = capfd.readouterr().err.splitlines()
    assert "no video has a label" in line
    assert "--validation.split" in line
