"""tools/predict.py, and the preflight checks of train.py."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from dsanet.engine import EngineError
from dsanet.engine.command_line import load_saved
from dsanet.engine.evaluation.accuracy import softmax
from dsanet.engine.evaluation.config import EvalConfig
from dsanet.engine.evaluation.evaluate import evaluate
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.launch.distributed import World
from dsanet.engine.preflight import check_disk
from dsanet.engine.report.console import Console
from dsanet.engine.run_folder import RunFolder
from dsanet.engine.setup import Training
from shards import ShardSettings, Source, build_split, open_split
from tests.conftest import CLASSES
from tests.integration.scripts import eval_here, records, run_script, train_here

Start = Callable[..., list[subprocess.Popen[str]]]


def test_predictions_are_those_of_the_evaluation(
    small_shards: Path, small_videos: list[Source], trained: Path, tmp_path: Path
) -> None:
    videos = [source.path for source in small_videos[20:]]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(videos[0].read_bytes()[:500])
    words = ("--checkpoint", trained, "--top", 4, "--json", tmp_path / "predictions.json")
    done = run_script("tools/predict.py", *words, *videos, broken)
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"error: {broken}" in done.stderr
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert eval_here("--data", small_shards, "--checkpoint", trained, "--out", tmp_path / "e") == 0
    table = np.load(tmp_path / "e" / "scores.npz")
    scores = np.exp(table["scores"]) / np.exp(table["scores"]).sum(1, keepdims=True)
    names = {name: index for index, name in enumerate(("left", "right", "up", "down"))}
    probabilities = np.zeros((8, 4))
    for row, entry in enumerate(predictions[:8]):
        for name, probability in entry["classes"]:
            probabilities[row, names[name]] = probability
    # The split shuffles its videos, so rows are compared as a set.
    np.testing.assert_allclose(np.sort(probabilities, 0), np.sort(scores, 0), atol=2e-3)


def test_a_missing_file_is_one_line(trained: Path) -> None:
    done = run_script("tools/predict.py", "--checkpoint", trained, "nowhere.mp4")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere.mp4: no such file")
    assert len(done.stderr.splitlines()) == 1


def test_windows_of_a_video_are_predicted_as_the_cut_parts(
    small_videos: list[Source], trained: Path, tmp_path: Path
) -> None:
    video = small_videos[0].path
    out = [tmp_path / f"{number}.json" for number in (1, 2)]
    more = ("--clips", 2, "--crops", 1, "--top", 4)
    base = ("tools/predict.py", "--checkpoint", trained, *more)
    html = tmp_path / "p.html"
    done = run_script(*base, "--window", 0.5, "--json", out[0], "--html", html, video)
    assert done.returncode == 0, done.stdout + done.stderr
    [windows] = json.loads(out[0].read_text())
    assert html.read_text().count("data:image/jpeg") == 2
    starts = [window["start"] for window in windows["timeline"]]
    assert starts == [0.5 * number for number in range(len(starts))]
    assert len(starts) > 1
    trained_network = load_trained(trained)
    probabilities = []
    for number, window in enumerate(windows["timeline"]):
        source = Source(video, -1, f"w{number}", start=window["start"], end=window["end"])
        settings = trained_network.shards
        shard_settings = ShardSettings(short_side=settings["short_side"], fps=settings["fps"])
        build_split([source], tmp_path / f"s{number}", "val", CLASSES, shard_settings)
        config = EvalConfig(data=str(tmp_path / f"s{number}"), checkpoint="c", clips=2, crops=1)
        split = open_split(tmp_path / f"s{number}", "val")
        table = evaluate(config, trained_network, split, World(), Console(enabled=False))
        row = softmax(table.scores)[0]
        probabilities.append(row)
        expected = {name: row[label] for label, name in enumerate(CLASSES)}
        assert dict(window["classes"]) == pytest.approx(expected, rel=1e-5)
    mean = np.mean(probabilities, axis=0)
    expected = {name: mean[label] for label, name in enumerate(CLASSES)}
    assert dict(windows["classes"]) == pytest.approx(expected, rel=1e-5)


def test_a_watched_folder_is_predicted_as_files_come(
    small_videos: list[Source], trained: Path, tmp_path: Path, start: Start
) -> None:
    inbox, table = tmp_path / "inbox", tmp_path / "p.csv"
    inbox.mkdir()
    more = ("--clips", 2, "--crops", 1, "--watch", inbox, "--csv", table)
    [process] = start("tools/predict.py", "--checkpoint", trained, *more)
    shutil.copy(small_videos[0].path, inbox / "one.mp4")
    (inbox / "bad.mp4").write_bytes(b"nonsense")
    deadline = time.monotonic() + 90
    while not table.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "one.mp4" in out
    assert "bad.mp4" in err
    assert table.read_text().count("one.mp4") == 4
    assert "Traceback" not in err


def words(shards: Path, tiny: Path, out: Path) -> tuple[object, ...]:
    return ("--data", shards, "--config", tiny, "--out", out)


def test_a_truncated_tar_is_reported_before_the_run(
    small_shards: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_shards, tmp_path / "shards")
    [tar] = (tmp_path / "shards" / "val").glob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-1000])
    assert train_here(*words(tmp_path / "shards", tiny, tmp_path / "run")) == 1
    assert str(tar) in capfd.readouterr().err
    assert not records(tmp_path / "run")


def test_a_full_disk_is_reported_before_the_run(
    small_shards: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert train_here(*words(small_shards, tiny, tmp_path / "run")) == 1
    assert "its checkpoints need" in capfd.readouterr().err


def test_space_of_checkpoints_that_will_be_removed_counts_as_free(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(trained)
    size = sum(path.stat().st_size for path in folder.checkpoints.files())
    run = cast(Training, SimpleNamespace(folder=folder, config=load_saved(folder.config)))
    needed = 4 * 1_000_000
    usage = SimpleNamespace(free=needed - size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check_disk(run, 1_000_000)
    usage.free -= 1
    with pytest.raises(EngineError, match="its checkpoints need"):
        check_disk(run, 1_000_000)


def test_preflight_does_not_change_the_losses(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    more = ("--runtime.preflight", "false")
    assert train_here(*words(small_shards, tiny, tmp_path / "run"), *more) == 0
    losses = [[r["loss"] for r in records(run)] for run in (trained, tmp_path / "run")]
    # The number of threads in this process may differ, so not to the bit.
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_the_modern_options_train_and_are_evaluated_with_averaged_weights(
    small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    more = ("--optim.ema", 0.9, "--optim.decay_norm_and_bias", "false", "--loss.mixup", 0.2)
    more += ("--loss.label_smoothing", 0.1)
    assert train_here(*words(small_shards, tiny, tmp_path / "run"), *more) == 0
    assert len(records(tmp_path / "run")) == 10
    out = ("--out", tmp_path / "eval", "--precision", "bf16")
    assert eval_here("--data", small_shards, "--checkpoint", tmp_path / "run", *out) == 0
