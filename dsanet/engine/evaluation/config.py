"""Settings of an evaluation, and the command line of eval.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dsanet.engine.command_line import build_parser, parse_dataclass
from dsanet.engine.config import check_not_empty
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.accuracy import Average
from dsanet.errors import check_choices, require
from pipelines import LoaderConfig


@dataclass(frozen=True)
class EvalConfig:
    """Settings of an evaluation.

    Attributes:
        data: folder of the shard set, or its address (https://, s3://, ...).
        checkpoint: run folder, or one of its .pt files.
        split: split to evaluate.
        clips: clips per video, evenly spaced; a multiple of U for a network that mixes U snippets.
        crops: crops per clip: 1 (centre) or 3 (start, middle and end of the longer side).
        out: folder to write metrics.json and scores.npz to; null: RUN/eval-SPLIT-CLIPSxCROPS, with
            -best at its end for `which: best`.
        which: checkpoint of a run folder: the `last` one or the `best` on validation.
        average: what is averaged over views: `logits`, as in the authors' code, or `softmax`.
        size: side of a crop in pixels; null: 256 for a network trained at 224, else the training
            size.
        batch: videos per forward pass and process; lower it if GPU memory is short.
        device: auto (a GPU if one is visible), cpu, cuda or cuda:N.
        precision: auto is bf16 on a GPU (fp16 on one without bf16) and fp32 on a CPU.
        compile: use torch.compile; null: on a GPU only.
        rendezvous_minutes: limit of the wait for all processes to start.
    """

    data: str
    checkpoint: str
    split: str = "val"
    clips: int = 8
    crops: Literal[1, 3] = 3
    out: str | None = None
    which: Literal["last", "best"] = "last"
    average: Average = "logits"
    size: int | None = None
    batch: int = 4
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool | None = None
    rendezvous_minutes: float = 10.0
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def __post_init__(self) -> None:
        check_choices(self, "", UsageError)
        check_not_empty(self, "checkpoint")
        for name in ("clips", "batch"):
            value = getattr(self, name)
            require(value >= 1, name, "be at least 1", value, UsageError)
        minutes, size = self.rendezvous_minutes, self.size
        require(minutes > 0, "rendezvous_minutes", "be greater than 0", minutes, UsageError)
        require(size is None or size >= 1, "size", "be at least 1, or null", size, UsageError)


def parse_eval(argv: Sequence[str] | None = None) -> EvalConfig:
    """Settings of an evaluation from the command line.

    argv: the words after `eval.py`; None takes those of this process.

    Raises:
        UsageError: for an unknown key or a wrong value; the message names the key.
    """
    parser = build_parser("eval.py", "Evaluate a trained network on a split of a shard set.")
    config = parse_dataclass(parser, EvalConfig, sys.argv[1:] if argv is None else argv)
    check_not_empty(config, "data")
    return config


def out_folder(config: EvalConfig) -> Path:
    """Folder of the scores: `out`, else one in the run folder, or beside a checkpoint file."""
    if config.out:
        return Path(config.out)
    run = Path(config.checkpoint)
    name = f"eval-{config.split}-{config.clips}x{config.crops}"
    if not run.is_file():
        return run / (name if config.which == "last" else f"{name}-{config.which}")
    return (run.parent.parent if run.parent.name == "checkpoints" else run.parent) / name
