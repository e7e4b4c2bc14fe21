"""The page of a report: one HTML file that needs no other file and no network."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment

from dsanet.engine.evaluation.per_class import ClassRow, class_table, confusion
from dsanet.engine.html_report.charts import COLOURS, Limits, Line, line_chart
from dsanet.engine.html_report.run import Evaluation, Run
from dsanet.engine.html_report.scores import class_changes, confused_pairs
from dsanet.engine.html_report.settings import settings_of
from dsanet.engine.report.console import score_lines

SECTIONS = ("summary", "curves", "waits", "scores", "videos", "data", "settings", "repeat")
NAMES = {"waits": "Waiting for data", "repeat": "Repeat it"}
MAX_CONFUSION = 30  # classes in a table of all pairs
PAIRS = 20
# Of a curve: title, kind of record, key, limits of the y axis.
CURVES: tuple[tuple[str, str, str, Limits], ...] = (
    ("Training loss", "train", "loss", (0, None)),
    ("Validation top-1", "val", "top1", (0, 1.02)),
    ("Validation mAP", "val", "map", (0, 1.02)),
    ("Training top-1", "train", "top1", (0, 1.02)),
    ("Learning rate", "train", "lr", (0, None)),
    ("Gradient norm", "train", "grad_norm", None),
    ("Videos per second", "train", "videos_per_second", (0, None)),
    ("Share of a step that waits for data", "train", "wait_share", (0, 1.02)),
)


@dataclass(frozen=True)
class VideoGroup:
    """Videos of one run under a common title; `videos` holds what the template shows of each."""

    run: Run
    title: str
    videos: list[dict[str, Any]]


def render(runs: Sequence[Run], videos: Sequence[VideoGroup], version: str) -> str:
    """The page as HTML text. Text from files is escaped."""
    # A key that an older version did not write shows nothing, and nor do its own keys.
    environment = Environment(autoescape=True, undefined=ChainableUndefined)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text("utf-8"))
    colours = {run.name: COLOURS[i % len(COLOURS)] for i, run in enumerate(runs)}
    shown = [s for s in SECTIONS if s != "videos" or videos]
    return template.render(
        title="Run report: " + ", ".join(run.name for run in runs),
        written=time.strftime("%Y-%m-%d %H:%M"),
        version=version,
        sections=[(section, NAMES.get(section, section.capitalize())) for section in shown],
        warnings=[f"{run.name}: {text}" for run in runs for text in run.warnings],
        runs=runs,
        colours=colours,
        summary=[_summary(run) for run in runs],
        charts=_charts(runs, colours),
        evaluations=[_evaluation(run, e) for run in runs for e in run.evaluations],
        changes=_changes(runs),
        videos=videos,
        settings=settings_of([run.config for run in runs]),
        commands={run.name: [shlex.join(_command(start)) for start in run.starts] for run in runs},
    )


def _command(start: dict[str, Any]) -> list[str]:
    return [str(word) for word in start.get("command") or ()]


def _summary(run: Run) -> dict[str, Any]:
    train, val, epochs = (run.of_kind(kind) for kind in ("train", "val", "epoch"))
    metric = run.config["validation"]["metric"]
    scores = [r[metric] for r in val if r.get(metric) is not None]
    last = train[-1] if train else {}
    return {
        "run": run,
        "epochs": f"{last['epoch']:.2f} of {last['epochs']}" if train else "0",
        "steps": last.get("step", 0),
        "loss": f"{last['loss']:.4f}" if train else "–",
        "last": f"{metric} {100 * scores[-1]:.1f} %" if scores else "–",
        "best": f"{metric} {100 * max(scores):.1f} %" if scores else "–",
        "speed": f"{last['videos_per_second']:.1f}" if train else "–",
        "wait": epochs[-1]["wait_share"] if epochs else None,
    }


def _charts(runs: Sequence[Run], colours: dict[str, str]) -> list[str]:
    charts = []
    for title, kind, key, limits in CURVES:
        lines = [_line(run, kind, key, colours[run.name]) for run in runs]
        charts.append(line_chart(title, "epoch", lines, y_limits=limits))
    return [chart for chart in charts if chart]


def _line(run: Run, kind: str, key: str, colour: str) -> Line:
    points = [
        (record["epoch"], record[key])
        for record in run.of_kind(kind)
        if isinstance(record.get(key), (int, float)) and math.isfinite(record[key])
    ]
    return Line(run.name, [p[0] for p in points], [p[1] for p in points], colour, kind == "val")


def _evaluation(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    scores, metrics = evaluation.scores, evaluation.metrics
    small = len(scores.classes) <= MAX_CONFUSION
    return {
        "run": run,
        "evaluation": evaluation,
        "lines": score_lines(metrics, evaluation.folder.name),
        "checkpoint": Path(str(metrics.get("checkpoint"))).name,
        "missing": list((metrics.get("missing_reasons") or {}).values())[:50],
        "classes": scores.classes,
        "confusion": confusion(scores.scores, scores.relevant).tolist() if small else None,
        "by_class": _class_rows(evaluation),
        "pairs": confused_pairs(scores, PAIRS),
    }


def _class_rows(evaluation: Evaluation) -> list[ClassRow]:
    scores = evaluation.scores
    return class_table(scores.scores, scores.probabilities, scores.relevant, scores.classes)


def _changes(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Accuracy of each class in the first two runs that have an evaluation."""
    scored = [(run.name, run.evaluations[0]) for run in runs if run.evaluations]
    if len(scored) < 2:
        return None
    (before, old), (after, new) = scored[:2]
    rows = class_changes(_class_rows(old), _class_rows(new))
    return {"before": before, "after": after, "rows": rows} if rows else None
