"""Prediction of the classes of video files: they are sharded, then evaluated like a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.evaluation.accuracy import softmax
from dsanet.engine.evaluation.evaluate import EvalConfig, evaluate, protocol_of
from dsanet.engine.evaluation.inputs import VideoFile
from dsanet.engine.evaluation.trained_network import TrainedNetwork
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from dsanet.errors import require
from shards import ShardSettings, Source, Split, open_split
from shards.errors import BadVideo

SPLIT = "predict"
GROUP = 8  # videos that are read and scored together: results come in groups

# Called with the opened split of a group and the names of its samples.
Observe = Callable[[Split, dict[int, str]], None]
Classes = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Windows:
    """Windows of a video that are predicted one by one, in seconds.

    Attributes:
        length: of a window; the last one of a video may be shorter.
        step: from the start of a window to that of the next.
    """

    length: float
    step: float

    def __post_init__(self) -> None:
        require(self.length > 0, "window", "be greater than 0", self.length, UsageError)
        require(self.step > 0, "step", "be greater than 0", self.step, UsageError)

    def of(self, duration: float) -> list[tuple[float, float]]:
        """Start and end of all windows of a video; the first reaches its end if it is short."""
        starts = [0.0]
        while starts[-1] + self.length < duration:
            starts.append(starts[-1] + self.step)
        return [(start, min(start + self.length, duration)) for start in starts if start < duration]


@dataclass(frozen=True)
class WindowPrediction:
    """The predicted classes of a part of a video, as (name, probability), best first."""

    start: float
    end: float
    classes: Classes


@dataclass(frozen=True)
class Prediction:
    """The predicted classes of a video.

    Attributes:
        video: its name, as the user gave it.
        classes: (name, probability), best first; empty when it could not be read. With windows,
            the mean over them.
        error: why it, or a part of it, could not be read.
        timeline: the windows, in order; empty without windows.
    """

    video: str
    classes: Classes = ()
    error: str | None = None
    timeline: tuple[WindowPrediction, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """Predicts the `top` most probable classes of videos.

    Attributes:
        config: clips, crops and the like; its data and split are not used.
        windows: predict these windows of each video instead of the whole; None for the whole.
        observe: called with each group's split before it is removed.
    """

    trained: TrainedNetwork
    config: EvalConfig
    world: World
    top: int = 5
    windows: Windows | None = None
    observe: Observe | None = None

    def __post_init__(self) -> None:
        require(self.top >= 1, "top", "be at least 1", self.top, UsageError)

    def predict(self, videos: Sequence[VideoFile]) -> Iterator[Prediction]:
        """Predict videos in their order. One that cannot be read has an error instead."""
        for first in range(0, len(videos), GROUP):
            yield from self._predict_group(videos[first : first + GROUP])

    def _predict_group(self, videos: Sequence[VideoFile]) -> list[Prediction]:
        sources: dict[int, list[Source]] = {}
        errors: dict[str, str] = {}
        for number, video in enumerate(videos):
            try:
                sources[number] = self._sources(number, video)
            except BadVideo as error:
                errors[f"{number:06d}"] = error.reason
        probabilities = self._scores(
            [source for parts in sources.values() for source in parts],
            {number: video.name for number, video in enumerate(videos)},
            errors,
        )
        return [
            self._prediction(number, video, sources.get(number, []), probabilities, errors)
            for number, video in enumerate(videos)
        ]

    def _sources(self, number: int, video: VideoFile) -> list[Source]:
        """The samples of a video: itself, or its windows."""
        if self.windows is None:
            return [Source(video.path, -1, f"{number:06d}")]
        from shards.encode.probe import probe

        times = probe(video.path).times
        duration = float(times[-1] - times[0]) if len(times) else 0.0
        if len(times) > 1:  # the last frame is shown as long as those before it
            duration *= len(times) / (len(times) - 1)
        return [
            Source(video.path, -1, f"{number:06d}-{index:05d}", start=start, end=end)
            for index, (start, end) in enumerate(self.windows.of(max(duration, 1e-3)))
        ]

    def _scores(
        self, sources: list[Source], names: dict[int, str], errors: dict[str, str]
    ) -> dict[str, np.ndarray]:
        """Probabilities (classes,) of each readable source, by key.

        errors: gets the reasons of the others.
        """
        from shards import build_split  # loads PyAV, which only predictions need

        if not sources:
            return {}
        # Frames of the size and rate that the network was trained on.
        training = self.trained.shards
        for key in ("short_side", "fps"):
            if key not in training:
                source = self.trained.source
                raise EngineError(f"{source}: lacks shards.{key}; give another checkpoint")
        settings = ShardSettings(short_side=training["short_side"], fps=training["fps"], workers=1)
        with TemporaryDirectory(prefix="dsanet-predict-") as folder:
            report = build_split(sources, Path(folder), SPLIT, self.trained.classes, settings)
            errors |= {v["key"]: v.get("reason", v["status"]) for v in report.refused}
            if not report.ok:
                return {}
            split = open_split(folder, SPLIT)
            config = replace(self.config, data=folder, split=SPLIT)
            table = evaluate(config, self.trained, split, self.world, Console(enabled=False))
            errors |= {split.key(video): reason for video, reason in table.missing.items()}
            if self.observe:
                keys = {video: split.key(video) for video in table.ids.tolist()}
                self.observe(split, {v: names[int(key[:6])] for v, key in keys.items()})
            average = protocol_of(config, self.trained).average
            rows = softmax(table.scores) if average == "logits" else table.scores
            return {split.key(int(i)): row for i, row in zip(table.ids, rows, strict=True)}

    def _prediction(
        self,
        number: int,
        video: VideoFile,
        sources: list[Source],
        probabilities: dict[str, np.ndarray],
        errors: dict[str, str],
    ) -> Prediction:
        keys = [f"{number:06d}", *(source.key for source in sources)]
        reasons = [errors[key] for key in keys if key in errors]
        readable = [source for source in sources if source.key in probabilities]
        if not readable:
            return Prediction(video.name, error=reasons[0] if reasons else "cannot be decoded")
        mean = np.mean([probabilities[source.key] for source in readable], axis=0)
        timeline = tuple(
            WindowPrediction(source.start, source.end, self._best(probabilities[source.key]))
            for source in readable
            if source.start is not None and source.end is not None
        )
        return Prediction(video.name, self._best(mean), reasons[0] if reasons else None, timeline)

    def _best(self, row: np.ndarray) -> Classes:
        order = np.argsort(-row, kind="stable")[: self.top]
        return tuple((self.trained.classes[c], float(row[c])) for c in order)
