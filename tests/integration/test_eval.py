"""eval.py: every video once, the same scores on any number of processes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dsanet.engine import UsageError
from dsanet.engine.config import TrainConfig
from dsanet.engine.evaluation.accuracy import compute_metrics, one_hot
from dsanet.engine.evaluation.config import EvalConfig, out_folder, parse_eval
from dsanet.engine.evaluation.evaluate import evaluate as evaluate_split
from dsanet.engine.evaluation.evaluate import run_evaluation
from dsanet.engine.evaluation.intervals import wilson
from dsanet.engine.evaluation.score_file import load_scores
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from dsanet.engine.setup import open_splits
from pipelines import EvalLoader, LoaderConfig
from shards import open_split
from tests.integration.scripts import eval_here, records, run_script


def evaluate(shards: Path, run: Path, out: Path, *more: object, processes: int = 1) -> Path:
    words = ("eval.py", "--data", shards, "--checkpoint", run, "--out", out, *more)
    done = run_script(*words, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def scores(out: Path) -> np.lib.npyio.NpzFile:
    return np.load(out / "scores.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def one_process(
    small_shards: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return evaluate(small_shards, trained, tmp_path_factory.mktemp("eval"))


def test_every_video_once_with_its_label(one_process: Path, small_shards: Path) -> None:
    table = scores(one_process)
    split = open_split(small_shards, "val")
    assert table["ids"].tolist() == list(range(8))
    np.testing.assert_array_equal(table["labels"], split.samples["label"])
    assert table["scores"].shape == (8, 4)


def test_metrics_name_the_protocol(one_process: Path) -> None:
    metrics = json.loads((one_process / "metrics.json").read_text())
    table = scores(one_process)
    right = table["scores"].argmax(1) == table["labels"]
    assert metrics["top1"] == pytest.approx(right.mean())
    assert metrics["top5"] == 1.0
    assert metrics["videos"] == 8
    assert metrics["views"] == 24
    assert metrics["protocol"]["clips"] == 8
    assert metrics["protocol"]["crops"] == 3
    assert metrics["protocol"]["average"] == "logits"


@pytest.mark.parametrize("processes", [2, 3])
def test_the_scores_do_not_depend_on_the_number_of_processes(
    processes: int, one_process: Path, small_shards: Path, trained: Path, tmp_path: Path
) -> None:
    many = scores(evaluate(small_shards, trained, tmp_path / "many", processes=processes))
    one = scores(one_process)
    np.testing.assert_array_equal(one["ids"], many["ids"])
    np.testing.assert_array_equal(one["labels"], many["labels"])
    np.testing.assert_allclose(one["scores"], many["scores"], rtol=0, atol=1e-5)


def test_softmax_average_is_a_distribution(
    small_shards: Path, trained: Path, tmp_path: Path
) -> None:
    words = ("--data", small_shards, "--checkpoint", trained, "--out", tmp_path / "soft")
    assert eval_here(*words, "--average", "softmax", "--clips", 2, "--crops", 1) == 0
    np.testing.assert_allclose(scores(tmp_path / "soft")["scores"].sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_video_that_cannot_be_read_is_listed_and_the_code_is_3(
    processes: int, small_shards: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_shards / "val", tmp_path / "shards" / "val")
    split = open_split(tmp_path / "shards", "val")
    offset, size = (int(split.samples[name][3]) for name in ("offset", "size"))
    path, key = split.tar_path(3), split.key(3)
    del split
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    words = ("eval.py", "--data", tmp_path / "shards", "--checkpoint", trained)
    done = run_script(*words, "--out", tmp_path / "out", processes=processes)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert f"error: 1 unreadable videos are not scored: {key}" in done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["missing"] == [key]
    assert metrics["videos"] == 7
    assert scores(tmp_path / "out")["ids"].tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_scores_are_written_beside_the_checkpoint(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("checkpoints/step.pt", "mine/good.pt")]
    for file in files:
        file.parent.mkdir()
        file.touch()
    folders = {
        out_folder(EvalConfig(data="d", checkpoint=str(path), which=which))
        for path, which in [(tmp_path, "last"), (tmp_path, "best"), *((f, "last") for f in files)]
    }
    names = ("eval-val-8x3", "eval-val-8x3-best", "mine/eval-val-8x3")
    assert folders == {tmp_path / name for name in names}


def test_a_set_behind_an_address_is_fetched(
    small_shards: Path, trained: Path, tmp_path: Path, one_process: Path
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra `remote`")
    address, scratch = f"file://{small_shards}", str(tmp_path / "scratch")
    words = ("--data", address, "--checkpoint", trained, "--out", tmp_path / "out")
    assert eval_here(*words, "--loader.scratch", scratch) == 0
    np.testing.assert_allclose(scores(tmp_path / "out")["scores"], scores(one_process)["scores"])
    loader = LoaderConfig(scratch=scratch)
    config = TrainConfig(data=address, model="m", out="o", loader=loader)
    assert [split and len(split) for split in open_splits(config)] == [20, 8]


class RecordingWorld(World):
    """Records at each barrier whether metrics.json exists."""

    written: list[bool]
    out: Path

    def barrier(self) -> None:
        self.written.append((self.out / "metrics.json").is_file())


def test_no_process_exits_before_the_scores_are_written(
    small_shards: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torchrun and srun end all processes once one has exited with code 3.
    monkeypatch.setattr(RecordingWorld, "written", [], raising=False)
    monkeypatch.setattr(RecordingWorld, "out", tmp_path, raising=False)
    words = ("--data", small_shards, "--checkpoint", trained, "--out", tmp_path)
    config = parse_eval([*map(str, words), "--clips=2", "--crops=1"])
    run_evaluation(config, RecordingWorld(), Console(enabled=False))
    assert RecordingWorld.written[-1:] == [True]


@pytest.mark.parametrize(
    ("words", "part", "code"),
    [
        (("--clips", 7), "clips must be a multiple of the 2 snippets", 2),
        (("--crops", 2), "crops", 2),
        (("--split", "test"), "test", 1),
        (("--checkpoint", "nowhere"), "nowhere", 1),
        (("--chekpoint", "x"), "did you mean checkpoint", 2),
    ],
)
def test_a_mistake_gets_one_line(
    words: tuple[object, ...], part: str, code: int, small_shards: Path, trained: Path,
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = ("--data", small_shards, "--checkpoint", trained, "--out", tmp_path / "out")
    assert eval_here(*base, *words) == code
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert part in line


def test_a_checkpoint_with_other_classes_is_refused(
    small_shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_shards / "val", tmp_path / "shards" / "val")
    manifest = tmp_path / "shards" / "val" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["classes"][0] = "sideways"
    manifest.write_text(json.dumps(content))
    assert eval_here("--data", tmp_path / "shards", "--checkpoint", trained) == 2
    assert "sideways" in capfd.readouterr().err


def inputs_of(views: torch.Tensor, segments: int) -> list[torch.Tensor]:
    """The inputs (1, U, T, H, W, 3) of one video's views (crops, K, T, H, W, 3), one by one."""
    passes = views.shape[1] // segments
    return [crop[g::passes][None] for crop in views for g in range(passes)]


def test_accuracies_of_clips_and_classes_against_a_loop(
    one_process: Path, small_shards: Path, trained: Path
) -> None:
    network, split = (
        load_trained(trained),
        open_split(small_shards, "val"),
    )
    loader = EvalLoader(
        split, network.sampling, LoaderConfig(threads=1), batch_size=1, clips=8, crops=3,
        crop_size=32, resize_short=32,
    )  # fmt: skip
    hits, right = [], []
    with torch.inference_mode():
        for batch in loader:
            logits = [network.model(views)[0] for views in inputs_of(batch.clips[0], 2)]
            label = int(batch.labels[0])
            hits += [int(row.argmax()) == label for row in logits]
            right.append((label, int(torch.stack(logits).mean(0).argmax()) == label))
    loader.close()
    metrics = json.loads((one_process / "metrics.json").read_text())
    assert len(hits) == 8 * 12 == 8 * metrics["inputs"]
    assert metrics["clip_top1"] == pytest.approx(sum(hits) / len(hits))
    with (one_process / "classes.csv").open() as file:
        for row in csv.DictReader(file):
            of_class = [hit for label, hit in right if label == int(row["label"])]
            assert float(row["top1"]) == pytest.approx(sum(of_class) / len(of_class))


def test_one_view_is_the_validation_of_training(
    small_shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", small_shards, "--checkpoint", trained, "--out", tmp_path)
    assert eval_here(*words, "--protocol", "one-view") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    validation = records(trained, "val")[-1]
    for name in ("top1", "top5", "map"):
        assert metrics[name] == validation[name]
    assert metrics["clip_top1"] == metrics["top1"]
    assert metrics["protocol"]["name"] == "one-view"
    out = capfd.readouterr().out
    assert "protocol: one-view: 2 clips x 1 crop of 32 pixels, centred, 1 input" in out
    low, high = wilson(round(8 * metrics["top1"]), 8)
    assert f"95 % interval: top1 {100 * low:.2f} to {100 * high:.2f}" in out


@pytest.mark.parametrize(
    ("name", "clips", "inputs"), [("slowfast-10x3", 10, 15), ("sthv1-2x", 4, 6)]
)
def test_a_preset_is_stored_with_its_scores(
    name: str, clips: int, inputs: int, small_shards: Path, trained: Path, tmp_path: Path
) -> None:
    words = ("--data", small_shards, "--checkpoint", trained, "--out", tmp_path)
    assert eval_here(*words, "--protocol", name) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    stored = load_scores(tmp_path)
    assert metrics["protocol"] == stored.protocol
    assert (stored.protocol["name"], stored.protocol["clips"]) == (name, clips)
    assert stored.ranks.shape == (8, inputs)
    assert [key.decode() for key in stored.keys] == [
        open_split(small_shards, "val").key(i) for i in range(8)
    ]


def test_a_split_without_videos_is_refused(small_shards: Path, trained: Path) -> None:
    network = load_trained(trained)
    empty = open_split(small_shards, "val").part(np.arange(0))
    config = EvalConfig(data=str(small_shards), checkpoint=str(trained))
    with pytest.raises(UsageError, match=r"val: the split has no videos to evaluate"):
        evaluate_split(config, network, empty, World(), Console(enabled=False))


def test_windows_longer_than_a_video_are_the_video(
    small_shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """24 frames at 25 a second are one window of each length, and the windows are equal."""
    words = ("--data", small_shards, "--checkpoint", trained, "--out", tmp_path)
    assert eval_here(*words, "--protocol", "m-twi", "--crops", 1) == 0
    network, split = load_trained(trained), open_split(small_shards, "val")
    loader = EvalLoader(
        split, network.sampling, LoaderConfig(threads=1), batch_size=8, crop_size=32,
        resize_short=32,
    )  # fmt: skip
    [batch] = loader
    with torch.inference_mode():
        expected = network.model(batch.clips).numpy()
    loader.close()
    stored = load_scores(tmp_path)
    np.testing.assert_allclose(stored.scores, expected, rtol=1e-4, atol=1e-5)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocol"]["placement"] == "windows"
    assert metrics["clip_top1"] is None
    assert metrics["map"] == compute_metrics(expected, one_hot(batch.labels.numpy(), 4))["map"]
    assert "protocol: own: windows of 1, 2, 4, 8, 16 s" in capfd.readouterr().out
