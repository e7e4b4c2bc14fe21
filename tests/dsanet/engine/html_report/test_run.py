"""Reading run folders: damaged files are named and left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsanet.engine import UsageError
from dsanet.engine.command_line import parse_train
from dsanet.engine.config import dump
from dsanet.engine.evaluation.results import score_metrics
from dsanet.engine.html_report.run import read_runs
from tests.dsanet.engine.html_report.test_scores import make_scores

VAL = {"kind": "val", "samples": 4, "epoch": 1.0, "top1": 0.5}


def make_run(folder: Path) -> Path:
    """A run folder with one record, and no shards."""
    folder.mkdir(parents=True)
    words = ["--recipe", "demo", "--data", str(folder / "shards"), "--out", str(folder)]
    (folder / "config.yaml").write_text(dump(parse_train(words)))
    (folder / "metrics.jsonl").write_text(json.dumps(VAL) + "\n")
    (folder / "environment.json").write_text(json.dumps([{"command": ["python", "train.py"]}]))
    return folder


def add_evaluation(run: Path) -> Path:
    """Scores and metrics, as eval.py writes them."""
    out = run / "eval-val-8x3"
    out.mkdir()
    scores = make_scores()
    metrics = {**score_metrics(scores), "protocol": scores.protocol}
    (out / "metrics.json").write_text(json.dumps(metrics))
    (out / "scores.npz").write_bytes(scores.to_bytes())
    return out


def test_a_run_without_shards_is_read_with_a_warning(tmp_path: Path) -> None:
    add_evaluation(make_run(tmp_path / "a"))
    [run] = read_runs([tmp_path / "a"], None)
    assert run.of_kind("val") == [VAL]
    assert run.starts[0]["command"] == ["python", "train.py"]
    assert run.evaluations[0].scores.scores.shape == (40, 3)
    assert run.data is None
    [warning] = run.warnings
    assert str(tmp_path / "a" / "shards") in warning


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b'{"kind": "val", "epoch": 1, "samples": 1}\nnonsense\n[1]\n'),
        ("metrics.jsonl", b"\xff\xfe"),
        ("environment.json", b"[" * 100_000),
        ("environment.json", b'{"time": 1'),
        ("quarantine.jsonl", b"[[[\n"),
        ("eval-val-8x3/metrics.json", b"[]"),
        ("eval-val-8x3/metrics.json", b""),
        ("eval-val-8x3/scores.npz", b"PK nonsense"),
        ("eval-val-8x3/scores.npz", b""),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_read(
    name: str, content: bytes, tmp_path: Path
) -> None:
    add_evaluation(make_run(tmp_path / "a"))
    (tmp_path / "a" / name).write_bytes(content)
    [run] = read_runs([tmp_path / "a"], None)
    assert any(str((tmp_path / "a" / name).parent) in text for text in run.warnings[1:])
    assert run.config["recipe"] == "demo"
    assert bool(run.evaluations) is not name.startswith("eval")


def test_runs_have_distinct_names_and_are_given_once(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / parent / "run") for parent in ("a", "b")]
    assert [run.name for run in read_runs(paths, None)] == ["a/run", "b/run"]
    with pytest.raises(UsageError, match="given twice"):
        read_runs([paths[0], paths[0] / ".." / "run"], None)
    with pytest.raises(UsageError, match="is not a run folder"):
        read_runs([tmp_path], None)
