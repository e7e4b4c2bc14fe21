"""`eval.py compare`: ensembles and paired differences from stored scores, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsanet.engine.evaluation.score_file import ScoreFile, load_scores
from dsanet.engine.launch.signals import Signals
from dsanet.engine.main import eval_main, run_command

CLASSES = ("run", "walk", "sit", "lie", "jump", "fall", "stand")
VIDEOS = 60


def example(seed: int, skill: float = 1.0, **more: Any) -> ScoreFile:
    """Scores of the same 60 videos, by a network of this skill."""
    labels = np.random.default_rng(0).integers(0, 7, VIDEOS)
    noise = np.random.default_rng(seed).normal(size=(VIDEOS, 7))
    noise[np.arange(VIDEOS), labels] += skill
    scores = ScoreFile(
        ids=np.arange(VIDEOS),
        labels=labels,
        scores=noise.astype(np.float32),
        ranks=np.ones((VIDEOS, 2), np.int32),
        keys=np.array([f"v{n:03d}".encode() for n in range(VIDEOS)]),
        missing=np.zeros(0, "S1"),
        more_labels=np.zeros((0, 2), np.int64),
        classes=CLASSES,
        protocol={"average": "logits", "description": f"paper of {seed}"},
    )
    return replace(scores, **more)


def write(path: Path, scores: ScoreFile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scores.to_bytes())
    return path


def take(scores: ScoreFile, rows: np.ndarray) -> dict[str, np.ndarray]:
    columns = ("ids", "labels", "scores", "ranks", "keys")
    return {name: getattr(scores, name)[rows] for name in columns}


def compare(*words: object) -> int:
    argv = ["compare", *map(str, words)]
    return run_command(lambda: eval_main(Signals(), argv))


def probabilities(scores: ScoreFile) -> list[list[float]]:
    powers = np.exp(scores.scores.astype(float))
    return (powers / powers.sum(1, keepdims=True)).tolist()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    first = write(tmp_path / "a" / "scores.npz", example(1))
    # Stored in another order: videos are matched by their keys.
    other = example(2, skill=1.5)
    order = np.random.default_rng(5).permutation(VIDEOS)
    return first, write(tmp_path / "b" / "scores.npz", replace(other, **take(other, order)))


def test_the_difference_against_a_loop_over_videos(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*pair, "--json", tmp_path / "new" / "c.json") == 0
    a, b = example(1), example(2, skill=1.5)
    wins = losses = 0
    for x, y, label in zip(a.scores, b.scores, a.labels, strict=True):
        wins += int(y.argmax() == label and x.argmax() != label)
        losses += int(x.argmax() == label and y.argmax() != label)
    content = json.loads((tmp_path / "new" / "c.json").read_text())
    found = content["differences"][0]["top1"]
    assert (found["only_other"], found["only_first"]) == (wins, losses)
    assert found["difference"] == pytest.approx((wins - losses) / VIDEOS)
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    out = capsys.readouterr().out
    assert f"right alone: {wins} against {losses}" in out
    assert "protocol paper of 2" in out


@pytest.mark.parametrize(("average", "weights"), [("softmax", None), ("logits", (2.0, 1.0))])
def test_the_ensemble_against_a_loop(
    average: str, weights: tuple[float, float] | None, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--average", average, "--out", tmp_path / "mixed")
    assert compare(*pair, *words, *(("--weights", *weights) if weights else ())) == 0
    files = [example(1), example(2, skill=1.5)]
    tables = [probabilities(f) if average == "softmax" else f.scores.tolist() for f in files]
    share = np.array(weights or (1, 1)) / sum(weights or (1, 1))
    right = 0
    mixed = load_scores(tmp_path / "mixed")
    for n in range(VIDEOS):
        row = [share[0] * x + share[1] * y for x, y in zip(tables[0][n], tables[1][n], strict=True)]
        assert mixed.scores[n].tolist() == pytest.approx(row, rel=1e-5)
        right += row.index(max(row)) == files[0].labels[n]
    metrics = json.loads((tmp_path / "mixed" / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(right / VIDEOS)
    assert metrics["clip_top1"] is None
    # The ensemble is a score file again.
    assert compare(pair[0], tmp_path / "mixed") == 0


def test_a_video_that_one_could_not_read_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, short = example(1), example(2)
    lost = {**take(short, np.arange(1, VIDEOS)), "missing": short.keys[:1]}
    files = [write(tmp_path / n, s) for n, s in (("a", whole), ("b", replace(short, **lost)))]
    assert compare(*files) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "59 videos with labels, 7 classes; left out, without scores in every file: 1"
    )


def test_several_labels_are_compared_by_map(tmp_path: Path) -> None:
    more = np.array([[n, (n + 3) % 7] for n in range(0, VIDEOS, 4)])
    more = more[more[:, 1] != example(1).labels[more[:, 0]]]
    paths = [write(tmp_path / str(n), example(n, n, more_labels=more)) for n in (1, 3)]
    assert compare(*paths, "--json", tmp_path / "c.json") == 0
    content = json.loads((tmp_path / "c.json").read_text())
    found = content["differences"][0]["map"]
    means = [entry["map"] for entry in content["scores"]]
    assert found["difference"] == pytest.approx(means[1] - means[0])
    assert 0 < found["interval"][0] < found["difference"] < found["interval"][1]


def other_labels(scores: ScoreFile) -> dict[str, Any]:
    return {"labels": (scores.labels + (scores.ids == 7)) % 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("run", "walk", "sit", "lie", "leap", "fall", "stand")},
         "7 classes, .* has 7; class 4 is 'leap' against 'jump'; compare scores of the same class"),
        ({"keys": np.array([f"w{n:03d}".encode() for n in range(VIDEOS)])},
         "of other videos than .*: 120 are in one of them alone, such as v000 in .*a; compare"),
        (other_labels(example(2)), "1 videos have other labels than in .*, such as v007; compare"),
    ],
)  # fmt: skip
def test_scores_of_another_set_are_refused_in_one_line(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write(tmp_path / "a", example(1))
    b = write(tmp_path / "b", example(2, **change))
    assert compare(a, b, "--out", tmp_path / "out", "--json", tmp_path / "c.json") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {b}: ")
    assert re.search(message, line)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: SCORES"),
        (("a",), "eval.py compare must be given at least 2 score files, got 1"),
        (("a", "nowhere"), "nowhere: no such file; give the scores.npz of evaluations"),
        (("a", "a", "--weights", "1"), "--weights must be 2 numbers of at least 0, one for each"),
        (("a", "a", "--weights", "0", "0"), "--weights must be 2 numbers"),
        (("a", "a", "--average", "max"), "invalid choice: 'max'"),
        (("a", "soft", "--average", "logits"), "--average must be softmax, as soft holds averaged"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(Path("a"), example(1))
    write(Path("soft"), example(2, protocol={"average": "softmax"}))
    assert compare(*words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_without_labels_there_is_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = np.full(VIDEOS, -1)
    paths = [write(tmp_path / str(n), example(n, labels=none)) for n in (1, 2)]
    assert compare(*paths) == 0
    assert "no labels, so no accuracies" in capsys.readouterr().out
