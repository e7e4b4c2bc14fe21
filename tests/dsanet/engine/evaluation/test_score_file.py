"""scores.npz: written, read back, and refused in one line."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from dsanet.engine import EngineError, UsageError
from dsanet.engine.evaluation import results
from dsanet.engine.evaluation.results import score_metrics, write_results
from dsanet.engine.evaluation.score_file import ScoreFile, load_scores
from shards.format.files import write_atomic


def example(videos: int = 6) -> ScoreFile:
    rng = np.random.default_rng(0)
    labels = np.arange(videos) % 3
    return ScoreFile(
        ids=np.arange(videos),
        labels=labels,
        scores=rng.normal(size=(videos, 3)).astype(np.float32),
        ranks=rng.integers(1, 4, (videos, 4)).astype(np.int32),
        keys=np.array([f"video-{n}".encode() for n in range(videos)]),
        missing=np.array([b"lost"]),
        more_labels=np.array([[0, 2]]),
        classes=("läuft", "sit", "走る"),
        protocol={"clips": 8, "crops": 3, "average": "logits"},
    )


def test_a_file_is_read_back_as_written(tmp_path: Path) -> None:
    written = example()
    (tmp_path / "scores.npz").write_bytes(written.to_bytes())
    for path in (tmp_path / "scores.npz", tmp_path):
        read = load_scores(path)
        for name, value in vars(written).items():
            np.testing.assert_array_equal(getattr(read, name), value)
    assert written.relevant[0].tolist() == [True, False, True]


def test_the_same_scores_are_the_same_bytes() -> None:
    assert example().to_bytes() == example().to_bytes()


def test_clip_accuracy_against_a_loop() -> None:
    scores = example()
    metrics = score_metrics(scores)
    for k in (1, 5):
        shares = [sum(1 <= rank <= k for rank in row) / len(row) for row in scores.ranks.tolist()]
        assert metrics[f"clip_top{k}"] == pytest.approx(sum(shares) / len(shares))


def test_without_labels_there_are_neither_accuracies_nor_class_files(tmp_path: Path) -> None:
    whole = vars(example())
    labels, none = np.full(6, -1), np.zeros((0, 2), np.int64)
    scores = ScoreFile(**(whole | {"labels": labels, "more_labels": none}))
    metrics = score_metrics(scores)
    accuracies = ("top1", "top1_interval", "clip_top1", "mean_class_top1", "map")
    assert [metrics[name] for name in accuracies] == [None] * 5
    write_results(tmp_path, scores, metrics)
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "scores.npz"}


def damaged(kind: str) -> bytes:
    content = example().to_bytes()
    if kind == "truncated":
        return content[: len(content) // 2]
    return {"empty": b"", "text": b"id,score\n1,2\n"}[kind]


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_a_damaged_file_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    path.write_bytes(damaged(kind))
    with pytest.raises(UsageError, match=r"scores.npz: not a score file, or damaged") as error:
        load_scores(path)
    assert len(str(error.value)) < 400


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file; give the scores.npz"):
        load_scores(tmp_path / "nowhere")
    old = {"ids": np.arange(2), "labels": np.arange(2), "scores": np.zeros((2, 3), np.float32)}
    np.savez(tmp_path / "old.npz", **old)
    with pytest.raises(UsageError, match=r"old.npz: written by an older version, .* run its eval"):
        load_scores(tmp_path / "old.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(UsageError, match=r"other.npz: not a score file"):
        load_scores(tmp_path / "other.npz")
    short = vars(example()) | {"keys": np.array([b"one"])}
    (tmp_path / "short.npz").write_bytes(ScoreFile(**short).to_bytes())
    with pytest.raises(UsageError, match=r"short.npz: not a score file"):
        load_scores(tmp_path / "short.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UsageError, match=r"evil.npz: not a score file"):
        load_scores(tmp_path / "evil.npz")


def test_metrics_never_lie_beside_scores_of_another_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path, example(), score_metrics(example()))

    def fail_late(path: Path, content: bytes) -> None:
        if path.name == "confusion.csv":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomic(path, content)

    monkeypatch.setattr(results, "write_atomic", fail_late)
    with pytest.raises(EngineError, match=r"cannot write the scores: No space left .* --out"):
        write_results(tmp_path, example(5), score_metrics(example(5)))
    assert len(load_scores(tmp_path).ids) == 5
    assert not (tmp_path / "metrics.json").exists()


def test_scores_of_no_video_have_no_accuracies(tmp_path: Path) -> None:
    """Where no video could be read."""
    whole = vars(example())
    rows = ("ids", "labels", "scores", "ranks", "keys", "more_labels")
    scores = ScoreFile(**(whole | {name: whole[name][:0] for name in rows}))
    metrics = score_metrics(scores)
    assert [metrics[name] for name in ("videos", "top1", "clip_top1")] == [0, None, None]
    write_results(tmp_path, scores, metrics)
    assert len(load_scores(tmp_path).ids) == 0
