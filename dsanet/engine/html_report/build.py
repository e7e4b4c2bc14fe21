"""Building a report: read the runs, look up their videos, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.evaluation.trained_network import TrainedNetwork, load_trained
from dsanet.engine.html_report.page import VideoGroup, render
from dsanet.engine.html_report.run import Evaluation, Run, read_runs
from dsanet.engine.html_report.scores import VideoScore, extreme_videos
from dsanet.engine.html_report.views import KernelMap, VideoView, kernel_uri, view_videos
from dsanet.errors import UserError, require
from shards import Split, open_split
from shards.format.files import write_atomic

TOP = 5


@dataclass(frozen=True)
class ReportConfig:
    """Settings of a report.

    Attributes:
        runs: run folders, which are shown side by side.
        out: file to write; None: report.html in the first run folder.
        data: folder of the shard set, where it is not the one that the runs name.
        videos: number of worst and of best videos to show; 0: none.
    """

    runs: tuple[Path, ...]
    out: Path | None = None
    data: Path | None = None
    videos: int = 4

    def __post_init__(self) -> None:
        require(self.videos >= 0, "videos", "be at least 0", self.videos, UsageError)


def write_report(config: ReportConfig) -> Path:
    """Write the report of runs; returns its file.

    Raises:
        EngineError: when it cannot be written, or a run is damaged.
        UsageError: when a folder is not that of a run.
    """
    runs = read_runs(list(config.runs), config.data)
    groups = _video_groups(runs, config) if config.videos else []
    page = render(runs, groups, metadata.version("dsanet"))
    out = config.out or config.runs[0] / "report.html"
    try:
        write_atomic(out, page.encode())
    except OSError as error:
        raise EngineError(
            f"{out}: cannot be written ({error.strerror}); give another --out"
        ) from error
    return out


def _video_groups(runs: Sequence[Run], config: ReportConfig) -> list[VideoGroup]:
    """Worst and best videos of the first evaluation of each run; other runs add a warning."""
    groups = []
    for run in runs:
        if not run.evaluations:
            continue
        evaluation = run.evaluations[0]
        try:
            trained = load_trained(_checkpoint(run, evaluation))
            name = evaluation.metrics["protocol"]["split"]
            split = open_split(config.data or run.config["data"], name)
            _check_match(evaluation, split, trained)
            groups += _groups_of_run(run, evaluation, trained, split, config.videos)
        except (UserError, KeyError) as error:
            run.warnings.append(f"no videos are shown: {error}")
    return groups


def _checkpoint(run: Run, evaluation: Evaluation) -> Path:
    """The evaluated checkpoint, which may have been moved with the run folder."""
    path = Path(evaluation.metrics["checkpoint"])
    return path if path.is_file() else run.path / "checkpoints" / path.name


def _check_match(evaluation: Evaluation, split: Split, trained: TrainedNetwork) -> None:
    """Raise EngineError unless the scores are of this split and network."""
    scores = evaluation.scores
    inside = ((scores.ids >= 0) & (scores.ids < len(split))).all()
    same = inside and scores.classes == tuple(split.classes) == trained.classes
    keys = [split.key(video).encode() for video in scores.ids.tolist()] if same else []
    if keys != scores.keys.tolist():
        raise EngineError(
            f"{evaluation.folder}: the scores are not those of split {split.name} of {split.root}"
        )


def _groups_of_run(
    run: Run, evaluation: Evaluation, trained: TrainedNetwork, split: Split, count: int
) -> list[VideoGroup]:
    worst, best = extreme_videos(evaluation.scores, count)
    views = view_videos(trained, split, sorted({video.video for video in (*worst, *best)}))
    probabilities = evaluation.scores.probabilities
    return [
        VideoGroup(
            run,
            title,
            [
                _describe(video, views[video.video], probabilities[video.row], trained.classes)
                for video in videos
                if video.video in views
            ],
        )
        for title, videos in (("worst videos", worst), ("best videos", best))
    ]


def _describe(
    score: VideoScore, view: VideoView, row: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    top = np.argsort(-row, kind="stable")[:TOP]
    return {
        "key": view.key,
        "label": f"is {classes[score.label]} ({100 * score.probability:.1f} %)",
        "frames": view.frames,
        "top": [(classes[c], float(row[c]), int(c) == score.label) for c in top],
        "kernels": [(k.block, kernel_uri(k), _describe_kernel(k)) for k in view.kernels],
    }


def _describe_kernel(kernel: KernelMap) -> str:
    """Mean weight of each tap over the channels."""
    means = kernel.weights.mean(0)
    return f"{len(kernel.weights)} channels, mean of taps " + ", ".join(f"{m:.2f}" for m in means)
