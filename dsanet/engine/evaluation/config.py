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
from dsanet.engine.evaluation.protocol import PRESETS, Crops, Placement, ProtocolName, Wanted
from dsanet.errors import check_choices, require
from pipelines import LoaderConfig


@dataclass(frozen=True)
class EvalConfig:
    """Settings of an evaluation.

    Attributes:
        data: folder of the shard set, or its address (https://, s3://, ...).
        checkpoint: run folder, or one of its .pt files.
        split: split to evaluate.
        protocol: settings by name, each of which the next four keys override: `paper` (8 clips x 3
            crops), `slowfast-10x3` (PySlowFast's views, probabilities averaged), `one-view` (the
            input of validation), `sthv1-2x` (two passes x 3 crops, as TSM tests on
            Something-Something), `m-twi` (whole videos in windows of 1 to 16 s, for ActivityNet).
        clips: clips per video; a multiple of U for a network that mixes U snippets.
        crops: crops per clip: 1 (centre) or 3 (start, middle and end of the longer side).
        placement: where the clips lie in time: as the `training` mode spreads test clips, as
            another mode of `sampling.mode` does, in two passes at the centres and the starts of
            the segments (`twice`), as the U centred snippets of validation (`centre`), or as
            these in each of many `windows` of the video.
        average: what is averaged over views: `logits`, as in the authors' code, or `softmax`.
        out: folder for the scores; null: RUN/eval-SPLIT-CLIPSxCROPS or RUN/eval-SPLIT-PROTOCOL,
            with -best at its end for `which: best`.
        which: checkpoint of a run folder: the `last` one or the `best` on validation.
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
    protocol: ProtocolName = "paper"
    clips: int | None = None
    crops: Crops | None = None
    placement: Placement | None = None
    average: Average | None = None
    out: str | None = None
    which: Literal["last", "best"] = "last"
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
        for name in ("clips", "batch", "size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "be at least 1", value, UsageError)
        minutes = self.rendezvous_minutes
        require(minutes > 0, "rendezvous_minutes", "be greater than 0", minutes, UsageError)
        tune = self.loader.tune
        require(tune != "again", "loader.tune", "be auto or off in evaluation", tune, UsageError)

    @property
    def wanted(self) -> Wanted:
        """What the keys override of the protocol."""
        return Wanted(self.clips, self.crops, self.placement, self.average, self.size)


def parse_eval(argv: Sequence[str] | None = None) -> EvalConfig:
    """Settings of an evaluation from the command line.

    argv: the words after `eval.py`; None takes those of this process.

    Raises:
        UsageError: for an unknown key or a wrong value; the message names the key.
    """
    parser = build_parser(
        "eval.py",
        "Evaluate a trained network on a split of a shard set. `eval.py compare SCORES SCORES ...` "
        "compares and averages scores that are already there.",
    )
    config = parse_dataclass(parser, EvalConfig, sys.argv[1:] if argv is None else argv)
    check_not_empty(config, "data")
    return config


def out_folder(config: EvalConfig) -> Path:
    """Folder of the scores: `out`, else one in the run folder, or beside a checkpoint file."""
    if config.out:
        return Path(config.out)
    run = Path(config.checkpoint)
    name = f"eval-{config.split}-{_views(config)}"
    if not run.is_file():
        return run / (name if config.which == "last" else f"{name}-{config.which}")
    return (run.parent.parent if run.parent.name == "checkpoints" else run.parent) / name


def _views(config: EvalConfig) -> str:
    """The last part of the folder's name: 8x3, one-view, slowfast-10x3-12x3, 8x3-mmaction2, ..."""
    preset = PRESETS[config.protocol]
    parts: list[str] = [] if config.protocol == "paper" else [config.protocol]
    if not parts or config.clips or config.crops:
        clips = config.clips or preset.clips or f"{preset.passes}u"
        parts.append(f"{clips}x{config.crops or preset.crops}")
    if config.placement and config.placement != preset.placement:
        parts.append(config.placement)
    return "-".join(parts)
