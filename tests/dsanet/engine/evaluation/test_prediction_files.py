"""Predictions as files and lines; windows of a video."""

from __future__ import annotations

import csv
import io
import json

import pytest

from dsanet.engine import UsageError
from dsanet.engine.evaluation.predict import Prediction, WindowPrediction, Windows
from dsanet.engine.evaluation.prediction_files import to_csv, to_json, to_lines
from dsanet.engine.html_report.predictions import render_predictions

RUN, SIT = ("run, fast", 0.75), ("sit", 0.25)
TIMELINE = (
    WindowPrediction(0, 2, (RUN, SIT)),
    WindowPrediction(2, 4, (RUN, SIT)),
    WindowPrediction(4, 5, (SIT, RUN)),
)
GOOD = Prediction("a.mp4", (RUN, SIT), None, TIMELINE)
BAD = Prediction("<b>.mp4", error="no video stream")


def test_windows_cover_a_video_and_end_with_it() -> None:
    assert Windows(4, 4).of(10) == [(0, 4), (4, 8), (8, 10)]
    assert Windows(4, 2).of(8) == [(0, 4), (2, 6), (4, 8)]
    assert Windows(4, 4).of(8) == [(0, 4), (4, 8)]
    assert Windows(4, 4).of(1.5) == [(0, 1.5)]
    assert Windows(2, 5).of(11) == [(0, 2), (5, 7), (10, 11)]  # parts of it, when asked for
    for length, step in ((0, 1), (1, 0), (-1, 1), (float("nan"), 1)):
        with pytest.raises(UsageError):
            Windows(length, step)


def test_json_has_classes_errors_and_timeline() -> None:
    good, bad = json.loads(to_json([GOOD, BAD]))
    assert good["classes"] == [["run, fast", 0.75], ["sit", 0.25]]
    assert good["timeline"][2] == {"start": 4, "end": 5, "classes": [["sit", 0.25], list(RUN)]}
    assert bad == {"video": "<b>.mp4", "classes": [], "error": "no video stream", "timeline": []}


def test_csv_has_a_row_for_each_class_and_each_error() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([GOOD, BAD]).decode())))
    assert len(rows) == 2 + 3 * 2 + 1
    assert rows[0]["class"] == "run, fast"
    assert rows[-2] | {"probability": ""} == {
        "video": "a.mp4", "start": "4.000", "end": "5.000", "rank": "2", "class": "run, fast",
        "probability": "", "error": "",
    }  # fmt: skip
    assert rows[-1]["error"] == "no video stream"


def test_lines_join_neighbouring_windows_of_one_class() -> None:
    lines = to_lines(GOOD)
    assert lines[0] == "a.mp4"
    assert [line.split()[-1] for line in lines[-2:]] == ["fast", "sit"]
    assert "0:00.0 -   0:04.0" in lines[-2]
    assert len(lines) == 1 + 2 + 2


def test_the_page_has_bars_a_timeline_and_no_markup_from_names() -> None:
    page = render_predictions([GOOD, BAD], {"a.mp4": ("data:image/jpeg;base64,AAAA",)}, "<i>")
    assert "<b>" not in page
    assert "&lt;b&gt;.mp4" in page
    assert page.count("left:") == 3
    assert "left:80.0%;width:20.0%" in page
    assert 'src="data:image/jpeg;base64,AAAA"' in page
