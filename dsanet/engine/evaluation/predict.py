"""Classes of plain video files: sharded for a moment, then evaluated as any split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.accuracy import softmax
from dsanet.engine.evaluation.evaluate import EvalConfig, evaluate
from dsanet.engine.evaluation.trained_network import Trained
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from shards import ShardSettings, Source, open_split

SPLIT = "predict"


@dataclass(frozen=True)
class Prediction:
    """What a video shows.

    Attributes:
        video: the file.
        classes: (name, probability), best first; empty when it could not be read.
        error: why it could not be read.
    """

    video: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def _settings(trained: Trained) -> ShardSettings:
    """The frames that training saw: same size and rate, as motion JPEG."""
    known = trained.shards
    return ShardSettings(short_side=known["short_side"], fps=known["fps"], workers=1)


def predict(
    videos: Sequence[Path], trained: Trained, config: EvalConfig, world: World, top: int
) -> list[Prediction]:
    """Score each file over clips x crops views, in the order given.

    Raises:
        EngineError: when there is no such file.
    """
    from shards import build_split  # loads PyAV, which only predictions need

    for video in videos:
        if not video.is_file():
            raise EngineError(f"no video file {video}")
    with TemporaryDirectory(prefix="dsanet-predict-") as folder:
        sources = [Source(path, -1, f"{number:06d}") for number, path in enumerate(videos)]
        classes, settings = trained.classes, _settings(trained)
        report = build_split(sources, Path(folder), SPLIT, classes, settings)
        errors = {v["key"]: v.get("reason", v["status"]) for v in report.refused}
        found: dict[str, np.ndarray] = {}
        if report.ok:
            split = open_split(folder, SPLIT)
            config = replace(config, data=folder, split=SPLIT)
            table = evaluate(config, trained, split, world, Console(enabled=False))
            keys = [split.key(int(i)) for i in table.ids]
            found = dict(zip(keys, softmax(table.scores), strict=True))
    return [_prediction(s, trained.classes, found, errors, top) for s in sources]


def _prediction(
    source: Source,
    classes: tuple[str, ...],
    found: dict[str, np.ndarray],
    errors: dict[str, str],
    top: int,
) -> Prediction:
    if source.key not in found:
        return Prediction(source.path, error=errors.get(source.key, "it could not be decoded"))
    shares = found[source.key]
    best = np.argsort(-shares, kind="stable")[:top]
    return Prediction(source.path, tuple((classes[c], float(shares[c])) for c in best))
