"""Predictions as JSON and CSV files, and as lines of a terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.predict import Prediction
from shards.format.files import write_atomic

BAR = 20  # characters of a bar at 100 %


def to_json(predictions: Sequence[Prediction]) -> bytes:
    """A list of objects: video, classes (pairs of name and probability), error, timeline."""
    content = [dataclasses.asdict(prediction) for prediction in predictions]
    return (json.dumps(content, indent=1) + "\n").encode()


def to_csv(predictions: Sequence[Prediction]) -> bytes:
    """A row for each class of each video, or of each window: video, start, end, rank, class,
    probability, error. Start and end are empty for a whole video.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("video", "start", "end", "rank", "class", "probability", "error"))
    for prediction in predictions:
        parts = [("", "", prediction.classes)]
        parts += [(f"{w.start:.3f}", f"{w.end:.3f}", w.classes) for w in prediction.timeline]
        for start, end, classes in parts:
            for rank, (name, probability) in enumerate(classes, 1):
                row = (prediction.video, start, end, rank, name, f"{probability:.6f}", "")
                writer.writerow(row)
        if prediction.error:
            writer.writerow((prediction.video, "", "", "", "", "", prediction.error))
    return file.getvalue().encode()


def to_lines(prediction: Prediction) -> list[str]:
    """The classes of a prediction with bars, and the best class of each run of windows."""
    full = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    lines = [prediction.video]
    width = max((len(name) for name, _ in prediction.classes), default=0)
    for name, probability in prediction.classes:
        bar = full * round(BAR * probability)
        lines.append(f"  {probability:6.1%}  {name:{width}}  {bar}".rstrip())
    for name, group in groupby(prediction.timeline, key=lambda window: window.classes[0][0]):
        windows = list(group)
        times = f"{_clock(windows[0].start)} - {_clock(windows[-1].end)}"
        mean = sum(window.classes[0][1] for window in windows) / len(windows)
        lines.append(f"  {times}  {mean:6.1%}  {name}")
    return lines


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):3d}:{seconds % 60:04.1f}"


def write(path: Path, content: bytes) -> None:
    """Write a file of predictions, whole or not at all.

    Raises:
        EngineError: when it cannot be written.
    """
    try:
        write_atomic(path, content)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written ({error.strerror})") from error
