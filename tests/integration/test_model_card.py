"""A folder of tools/export.py --card: eval.py, predict.py and train.py take it back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from dsanet.engine import EngineError
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.exporting import write
from dsanet.inference import ClipShape
from dsanet.metadata import ExportMetadata
from shards import Source
from tests.conftest import CLASSES
from tests.integration.scripts import eval_here, run_script, train_here

VIEWS = ("--clips", 2, "--crops", 1)


@pytest.fixture(scope="module")
def run(small_shards: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with scores."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("card") / "run")
    assert eval_here("--data", small_shards, "--checkpoint", run, *VIEWS) == 0
    return run


@pytest.fixture(scope="module")
def card(run: Path) -> Path:
    """The model card of the run."""
    out = run.parent / "card"
    done = run_script("tools/export.py", "--checkpoint", run, "--out", out, "--card")
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_card_has_settings_classes_and_scores(card: Path, run: Path) -> None:
    _, header, text = (card / "README.md").read_text().split("---\n", 2)
    [model] = yaml.safe_load(header)["model-index"]
    metrics = json.loads((run / "eval-val-2x1" / "metrics.json").read_text())
    values = {m["type"]: m["value"] for m in model["results"][0]["metrics"]}
    assert values == {key: metrics[key] for key in ("top1", "top5", "map")}
    assert metrics["protocol"]["description"] in text
    assert (card / "classes.txt").read_text().split() == list(CLASSES)
    everything = "".join(p.read_text() for p in card.iterdir() if p.suffix != ".safetensors")
    assert str(run) not in everything, "the card names a path of this machine"
    assert (card / "model.safetensors").stat().st_mode & 0o044


def test_the_card_gives_the_scores_of_the_checkpoint(
    card: Path, run: Path, small_shards: Path, tmp_path: Path
) -> None:
    for checkpoint in (card, card / "model.safetensors"):
        out = tmp_path / checkpoint.name
        words = ("--data", small_shards, "--checkpoint", checkpoint, "--out", out, *VIEWS)
        assert eval_here(*words) == 0
        scores = [np.load(f / "scores.npz")["scores"] for f in (out, run / "eval-val-2x1")]
        np.testing.assert_array_equal(*scores)


def test_a_card_alone_predicts_and_starts_a_run(
    card: Path, small_shards: Path, small_videos: list[Source], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    moved = shutil.copytree(card, tmp_path / "moved")
    done = run_script("tools/predict.py", "--checkpoint", moved, *VIEWS, small_videos[0].path)
    assert done.returncode == 0, done.stderr
    assert any(name in done.stdout for name in CLASSES)
    words = ("--data", small_shards, "--config", card / "config.yaml", "--weights", moved)
    assert train_here(*words, "--out", tmp_path / "run", "--epoch_limit", 1) == 0
    assert f"{moved}" in capfd.readouterr().out.replace("\n", "")


def test_a_file_that_does_not_say_its_training_is_refused(card: Path, tmp_path: Path) -> None:
    trained = load_trained(card)
    metadata = ExportMetadata(
        trained.name, trained.network, 2, 2, 32, (0, 0, 0), (1, 1, 1), len(CLASSES)
    )
    path = tmp_path / "model.safetensors"
    write(trained.model, ClipShape(2, 2, 32), metadata, path)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"does not say its classes.*export it again"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--model", "i3d_r18", "--num-classes", 4, "--card"), 2, "--card needs --checkpoint"),
        (("--checkpoint", "nowhere", "--card"), 1, "nowhere: no checkpoint there"),
    ],
)
def test_a_mistake_is_named(words: tuple[object, ...], code: int, text: str) -> None:
    done = run_script("tools/export.py", *words, "--out", "/proc/card")
    assert done.returncode == code
    assert text in done.stderr.splitlines()[-1]
