"""A folder with a trained network, as the Hugging Face hub has models: weights, settings, card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.trained_network import EXPORTED, TrainedNetwork
from dsanet.engine.html_report.run import Evaluation, Run
from dsanet.engine.report.console import score_lines
from dsanet.exporting import write
from dsanet.inference import ClipShape
from dsanet.metadata import ExportMetadata
from dsanet.recognizer import Recognizer
from shards.format.files import write_atomic

# Entries of settings and metrics that name paths of the machine.
PLACES = ("data", "out", "weights", "resume", "checkpoint", "missing_reasons")
USE = """\
python tools/predict.py --checkpoint FOLDER video.mp4
python eval.py --data SHARDS --checkpoint FOLDER
python train.py --data SHARDS --model {model} --weights FOLDER --out RUN\
"""


def write_card(
    folder: Path,
    trained: TrainedNetwork,
    shape: ClipShape,
    metadata: ExportMetadata,
    run: Run | None,
) -> Path:
    """Write weights, settings, classes, scores and README.md into a folder; returns the weights.

    run: the run folder that the network is of, for its settings, data and scores; None without.

    Raises:
        EngineError: when the folder cannot be written.
        ModelError: when safetensors is not installed.
    """
    assert isinstance(trained.model, Recognizer)
    evaluations = [e for e in run.evaluations if _is_of(e, trained)] if run else []
    files = {"classes.txt": "".join(f"{name}\n" for name in trained.classes)}
    if run:
        shared = {key: value for key, value in run.config.items() if key not in PLACES}
        files["config.yaml"] = yaml.safe_dump(shared, sort_keys=False, allow_unicode=True)
    if evaluations:
        scores = [
            {key: value for key, value in evaluation.metrics.items() if key not in PLACES}
            for evaluation in evaluations
        ]
        files["metrics.json"] = json.dumps(scores, indent=1) + "\n"
    files["README.md"] = _readme(trained, metadata, run, evaluations)
    weights = folder / EXPORTED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{EXPORTED.stem}.partial{EXPORTED.suffix}"
        write(trained.model, shape, metadata, partial)
        partial.replace(weights)
        for name, text in files.items():
            write_atomic(folder / name, text.encode())
    except OSError as error:
        raise EngineError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); give another --out"
        ) from error
    return weights


def _is_of(evaluation: Evaluation, trained: TrainedNetwork) -> bool:
    return Path(str(evaluation.metrics.get("checkpoint"))).name == trained.source.name


def _readme(
    trained: TrainedNetwork,
    metadata: ExportMetadata,
    run: Run | None,
    evaluations: Sequence[Evaluation],
) -> str:
    header = yaml.safe_dump(_header(trained, evaluations), sort_keys=False, allow_unicode=True)
    sampling = trained.sampling
    lines = [
        f"# {trained.name}",
        "",
        f"A video classifier for {len(trained.classes)} classes (`classes.txt`), trained with the "
        "DSANet trainer: *DSANet: Dynamic Segment Aggregation Network for Video-Level "
        "Representation Learning* (Wu et al., ACM MM 2021).",
        "",
        "## Use",
        "",
        "```",
        USE.format(model=trained.name),
        "```",
        "",
        "## Input",
        "",
        f"uint8 RGB clips (batch, {metadata.segments} snippets, {metadata.frames} frames, "
        f"{metadata.size}, {metadata.size}, 3); a snippet has every {_nth(sampling.stride)} frame "
        f"(`sampling.mode {sampling.mode}`). The network itself subtracts the mean "
        f"{_numbers(metadata.mean)} and divides by {_numbers(metadata.std)}.",
        "",
        "## Scores",
        "",
        *_scores(evaluations),
        "",
        "## Training",
        "",
        *_training(trained, run),
    ]
    return f"---\n{header}---\n\n" + "\n".join(lines) + "\n"


def _header(trained: TrainedNetwork, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The metadata block of a model card, with the scores as the hub's model-index has them."""
    header: dict[str, Any] = {
        "library_name": "dsanet",
        "pipeline_tag": "video-classification",
        "tags": ["video-classification", "action-recognition", "dsanet"],
    }
    results = [
        {
            "task": {"type": "video-classification"},
            "dataset": {
                "name": str(evaluation.metrics["protocol"].get("split", "")),
                "type": "own",
            },
            "metrics": [
                {"type": key, "value": evaluation.metrics[key], "name": name}
                for key, name in (("top1", "top-1"), ("top5", "top-5"), ("map", "mAP"))
                if evaluation.metrics.get(key) is not None
            ],
        }
        for evaluation in evaluations
    ]
    if results:
        header["model-index"] = [{"name": trained.name, "results": results}]
    return header


def _scores(evaluations: Sequence[Evaluation]) -> list[str]:
    if not evaluations:
        return ["This checkpoint was not evaluated."]
    lines = []
    for evaluation in evaluations:
        split = evaluation.metrics["protocol"].get("split", "")
        lines += [f"Split {split}:", ""]
        lines += [f"- {line}" for line in score_lines(evaluation.metrics, evaluation.folder.name)]
    return lines


def _training(trained: TrainedNetwork, run: Run | None) -> list[str]:
    lines = [f"Trained on {trained.samples} videos, counting repetitions."]
    if run is None:
        return lines
    lines[0] += " All settings are in `config.yaml`."
    if run.data:
        count = run.data["counts"]["samples"]
        lines.append(f"The training split has {count} videos; SHA-256 of its list:")
        lines.append(f"`{run.data.get('effective_sha256')}`.")
    if run.starts:
        versions = run.starts[-1].get("versions") or {}
        lines.append("Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".")
    return lines


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
