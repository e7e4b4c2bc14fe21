"""The page of predictions: frames, the most probable classes, and a timeline of each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment

from dsanet.engine.evaluation.predict import Prediction
from dsanet.engine.evaluation.trained_network import TrainedNetwork
from dsanet.engine.html_report.charts import COLOURS
from dsanet.engine.html_report.views import view_videos
from shards import Split

OTHER = "#8a929b"  # of the classes that are not among the most frequent ones


@dataclass
class FrameCollector:
    """Keeps the frames of the first sample of each video, while its group can be read.

    Attributes:
        frames: data URIs of the middle frames of the snippets, by the video's name.
    """

    trained: TrainedNetwork
    frames: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __call__(self, split: Split, names: dict[int, str]) -> None:
        """Read the frames of new videos. names: of the samples of the split."""
        first: dict[str, int] = {}
        for sample in sorted(names, key=split.key):
            first.setdefault(names[sample], sample)
        views = view_videos(self.trained, split, sorted(first.values()), kernels=False)
        self.frames |= {name: views[s].frames for name, s in first.items() if s in views}


def render_predictions(
    predictions: Sequence[Prediction], frames: dict[str, tuple[str, ...]], title: str
) -> str:
    """The page as HTML text. Names and class names are escaped."""
    template = Environment(autoescape=True).from_string(
        (Path(__file__).parent / "predictions.html").read_text("utf-8")
    )
    colours = _colours(predictions)
    videos = [
        {"p": p, "frames": frames.get(p.video, ()), "timeline": _timeline(p, colours)}
        for p in predictions
    ]
    return template.render(title=title, videos=videos, colours=colours)


def _colours(predictions: Sequence[Prediction]) -> dict[str, str]:
    """Colours of the classes that are best in the most windows."""
    counts: dict[str, int] = {}
    for prediction in predictions:
        for window in prediction.timeline:
            counts[window.classes[0][0]] = counts.get(window.classes[0][0], 0) + 1
    names = sorted(counts, key=lambda name: -counts[name])
    return dict(zip(names, COLOURS, strict=False))


def _timeline(prediction: Prediction, colours: dict[str, str]) -> list[dict[str, Any]]:
    """Boxes of a timeline: left and width in per cent of the video, colour, text."""
    if not prediction.timeline:
        return []
    end = prediction.timeline[-1].end
    starts = [*(window.start for window in prediction.timeline), end]
    return [
        {
            "left": 100 * window.start / end,
            "width": 100 * (following - window.start) / end,
            "colour": colours.get(window.classes[0][0], OTHER),
            "text": f"{window.start:.1f} to {window.end:.1f} s: {window.classes[0][0]} "
            f"({100 * window.classes[0][1]:.1f} %)",
        }
        for window, following in zip(prediction.timeline, starts[1:], strict=True)
    ]
