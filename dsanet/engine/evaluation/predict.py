"""Prediction of the classes of video files: they are sharded, then evaluated like a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.accuracy import softmax
from dsanet.engine.evaluation.evaluate import EvalConfig, evaluate
from dsanet.engine.evaluation.trained_network import TrainedNetwork
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from shards import ShardSettings, Source, open_split

SPLIT = "predict"


@dataclass(frozen=True)
class Prediction:
    """The predicted classes of a video.

    Attributes:
        video: the file.
        classes: (name, probability), best first; empty when it could not be read.
        error: why it could not be read.
    """

    video: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def _settings(trained: TrainedNetwork) -> ShardSettings:
    """Frames of the size and rate that the network was trained on, as motion JPEG."""
    training = trained.shards
    return ShardSettings(short_side=training["short_side"], fps=training["fps"], workers=1)


def predict(
    videos: Sequence[Path], trained: TrainedNetwork, config: EvalConfig, world: World, top: int
) -> list[Prediction]:
    """Predict the `top` most probable classes of each video, in the order of `videos`.

    config: clips, crops and the like; its data and split are not used.

    Raises:
        EngineError: when a file does not exist. One that cannot be read becomes a Prediction with
            an error.
    """
    from shards import build_split  # loads PyAV, which only predictions need

    for video in videos:
        if not video.is_file():
            reason = "not a regular file" if video.exists() else "no such file"
            raise EngineError(f"{video}: {reason}; give video files")
    with TemporaryDirectory(prefix="dsanet-predict-") as folder:
        sources = [Source(path, -1, f"{number:06d}") for number, path in enumerate(videos)]
        classes, settings = trained.classes, _settings(trained)
        report = build_split(sources, Path(folder), SPLIT, classes, settings)
        errors = {v["key"]: v.get("reason", v["status"]) for v in report.refused}
        probabilities: dict[str, np.ndarray] = {}
        if report.ok:
            split = open_split(folder, SPLIT)
            config = replace(config, data=folder, split=SPLIT)
            table = evaluate(config, trained, split, world, Console(enabled=False))
            keys = [split.key(int(i)) for i in table.ids]
            probabilities = dict(zip(keys, softmax(table.scores), strict=True))
            errors |= {split.key(video): reason for video, reason in table.missing.items()}
    return [_prediction(s, trained.classes, probabilities, errors, top) for s in sources]


def _prediction(
    source: Source,
    classes: tuple[str, ...],
    probabilities: dict[str, np.ndarray],
    errors: dict[str, str],
    top: int,
) -> Prediction:
    if source.key not in probabilities:
        return Prediction(source.path, error=errors.get(source.key, "cannot be decoded"))
    row = probabilities[source.key]
    best = np.argsort(-row, kind="stable")[:top]
    return Prediction(source.path, tuple((classes[c], float(row[c])) for c in best))
