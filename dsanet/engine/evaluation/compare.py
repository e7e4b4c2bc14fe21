"""`eval.py compare`: score files against each other, and averaged into an ensemble."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.evaluation.accuracy import Average
from dsanet.engine.evaluation.bootstrap import bootstrap_map
from dsanet.engine.evaluation.intervals import mcnemar, paired_interval
from dsanet.engine.evaluation.per_class import class_ranks
from dsanet.engine.evaluation.results import write_results
from dsanet.engine.evaluation.score_file import ScoreFile
from dsanet.engine.evaluation.score_sets import Entry, align, make_entry
from dsanet.errors import require
from dsanet.terminal import print_line
from shards.format.files import write_atomic

ENSEMBLE = "ensemble"
DESCRIPTION = """\
Compare the scores of evaluations on the same videos, and average them.

python eval.py compare A/scores.npz B/scores.npz [C/scores.npz ...]

Prints each accuracy with its 95 % interval, that of the ensemble, and the difference of each to the
first file, from the stored scores alone. A folder stands for the scores.npz in it.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"eval.py compare: {message}; --help lists all options")


def parse_compare(argv: Sequence[str]) -> argparse.Namespace:
    """The command line of `eval.py compare`.

    Raises:
        UsageError: for an unknown option, fewer than two files, or other weights than files.
    """
    parser = Parser(
        prog="eval.py compare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="SCORES", help="scores.npz")
    parser.add_argument(
        "--average",
        choices=("softmax", "logits"),
        default="softmax",
        help="what the ensemble is the mean of: the probabilities of the files, or their logits",
    )
    parser.add_argument(
        "--weights", nargs="+", type=float, help="weight of each file in the ensemble (equal)"
    )
    parser.add_argument("--json", type=Path, help="also write the comparison here")
    parser.add_argument(
        "--out", type=Path, help="folder for the ensemble's scores.npz, metrics.json and CSV files"
    )
    args = parser.parse_args(argv)
    count = len(args.files)
    require(count >= 2, "eval.py compare", "be given at least 2 score files", count, UsageError)
    if args.weights is not None:
        must = f"be {count} numbers of at least 0, one for each file, not all 0"
        total = sum(args.weights)
        valid = len(args.weights) == count and min(args.weights) >= 0 < total < math.inf
        require(valid, "--weights", must, args.weights, UsageError)
    return args


def compare_main(argv: Sequence[str]) -> int:
    """The command `eval.py compare`; returns its exit code.

    Raises:
        UsageError: for files that cannot be read, or are of other videos or classes.
        EngineError: when a result cannot be written.
    """
    args = parse_compare(argv)
    entries = align(args.files)
    weights = args.weights or [1.0] * len(entries)
    mixed = ensemble(entries, weights, args.average)
    differences = [difference(entries[0], other) for other in (*entries[1:], mixed)]
    for line in report(entries, mixed, differences):
        print_line(line)
    if args.out is not None:
        write_results(args.out, mixed.scores, mixed.metrics)
    if args.json is not None:
        content = {
            "scores": [{"name": entry.name, **entry.metrics} for entry in (*entries, mixed)],
            "weights": weights,
            "average": args.average,
            "differences": differences,
        }
        _write(args.json, (json.dumps(content, indent=1) + "\n").encode())
    return 0


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written: {error.strerror}") from error


def ensemble(entries: Sequence[Entry], weights: Sequence[float], average: Average) -> Entry:
    """The weighted mean of the scores of all entries.

    average: the mean of `softmax` takes the probabilities of each entry, that of `logits` its
    averaged logits.

    Raises:
        UsageError: for `logits` where an entry holds probabilities.
    """
    for entry in entries:
        stored = entry.scores.average
        fits = average == "softmax" or stored == "logits"
        must = f"be softmax, as {entry.name} holds averaged probabilities"
        require(fits, "--average", must, average, UsageError)
    parts = [
        entry.scores.probabilities if average == "softmax" else entry.scores.scores.astype(float)
        for entry in entries
    ]
    mean = np.average(parts, axis=0, weights=weights).astype(np.float32)
    first = entries[0].scores
    protocol = {
        "average": average,
        "description": f"{ENSEMBLE} of {len(entries)} score files, mean of {average}",
        "files": [
            {"file": entry.name, "weight": weight, "protocol": entry.scores.protocol}
            for entry, weight in zip(entries, weights, strict=True)
        ],
    }
    no_inputs = np.zeros((len(mean), 0), np.int32)
    scores = replace(first, scores=mean, ranks=no_inputs, protocol=protocol)
    return make_entry(ENSEMBLE, scores)


def difference(first: Entry, other: Entry) -> dict[str, Any]:
    """How much better `other` is than `first` on the same videos, with intervals.

    For k = 1 and 5: difference, its 95 % interval (see `paired_interval`), the videos that only one
    of them has right, and the p-value of McNemar's test. For sets whose videos have several labels,
    the difference of mAP with a bootstrap interval.
    """
    result: dict[str, Any] = {"first": first.name, "other": other.name}
    relevant = first.scores.relevant
    labelled = relevant.any(1)
    videos = int(labelled.sum())
    if not videos:
        return result
    for k in (1, 5):
        mine, theirs = (hits(entry.scores, k)[labelled] for entry in (first, other))
        wins, losses = int((theirs & ~mine).sum()), int((mine & ~theirs).sum())
        result[f"top{k}"] = {
            "difference": (wins - losses) / videos,
            "interval": paired_interval(wins, losses, videos),
            "only_other": wins,
            "only_first": losses,
            "p": mcnemar(wins, losses),
        }
    if (relevant.sum(1) > 1).any():
        draws = [bootstrap_map(e.scores.probabilities, relevant) for e in (first, other)]
        low, high = np.percentile(draws[1] - draws[0], [2.5, 97.5])
        result["map"] = {
            "difference": other.metrics["map"] - first.metrics["map"],
            "interval": (float(low), float(high)),
        }
    return result


def hits(scores: ScoreFile, k: int) -> np.ndarray:
    """Whether one of a video's labels is among its k highest scores, as in `top_k` (N,)."""
    ranks = np.where(scores.relevant, class_ranks(scores.scores), len(scores.classes) + 1)
    return np.asarray((ranks.min(1) <= k) & ~np.isnan(scores.scores).any(1))


def report(
    entries: Sequence[Entry], mixed: Entry, differences: Sequence[dict[str, Any]]
) -> list[str]:
    """The comparison as lines of text."""
    metrics = entries[0].metrics
    left_out = max(len(np.union1d(e.scores.keys, e.scores.missing)) for e in entries)
    left_out -= metrics["videos"]
    classes = len(entries[0].scores.classes)
    lines = [f"{metrics['labelled']} videos with labels, {classes} classes"]
    if left_out:
        lines[0] += f"; left out, without scores in every file: {left_out}"
    if not metrics["labelled"]:
        return [*lines, "no labels, so no accuracies"]
    for entry in (*entries, mixed):
        lines.append(f"{entry.name}: {_accuracies(entry.metrics)}")
        if entry is not mixed:
            lines.append(f"  protocol {entry.scores.protocol.get('description', '')}")
    for one in differences:
        lines.append(f"{one['other']} against {one['first']}:")
        lines += [
            f"  {name} {_difference(one[name])}" for name in ("top1", "top5", "map") if name in one
        ]
    return lines


def _accuracies(metrics: dict[str, Any]) -> str:
    parts = []
    for k in (1, 5):
        low, high = metrics[f"top{k}_interval"]
        parts.append(f"top{k} {100 * metrics[f'top{k}']:.2f} ({100 * low:.2f} to {100 * high:.2f})")
    return "  ".join([*parts, f"map {100 * metrics['map']:.2f}"])


def _difference(values: dict[str, Any]) -> str:
    low, high = values["interval"]
    text = f"{100 * values['difference']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
    if "p" not in values:
        return text
    counts = f"right alone: {values['only_other']} against {values['only_first']}"
    return f"{text}  {counts}, McNemar p = {values['p']:.3g}"
