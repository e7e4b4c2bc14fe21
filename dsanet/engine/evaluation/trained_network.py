"""Loading a trained network from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import dsanet
from dsanet.engine.checkpoint import Report, find_checkpoint
from dsanet.engine.run_state import read_checkpoint, weights_to_evaluate
from dsanet.terminal import print_line
from pipelines import SamplingConfig


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and what is known about its training.

    Attributes:
        model: the network, on the CPU, in evaluation mode.
        name: its name in `dsanet.list_models()`.
        network: options with which it was built.
        sampling: of the frames it was trained on.
        classes: names, in the order of the logits.
        size: side of its training crops in pixels.
        source: the checkpoint file.
        samples: videos it was trained on, counting repetitions.
        shards: settings with which the training split was sharded.
    """

    model: nn.Module
    name: str
    network: dict[str, Any]
    sampling: SamplingConfig
    classes: tuple[str, ...]
    size: int
    source: Path
    samples: int
    shards: dict[str, Any]


def warn(message: str) -> None:
    """Print a warning on standard error."""
    print_line(message, error=True)


def load_trained(path: Path, which: str = "last", report: Report = warn) -> TrainedNetwork:
    """Load the network of a checkpoint, with averaged weights if the run has them.

    path: run folder, or a checkpoint file.
    which: of a run folder, `last` or `best`; where the last is damaged, the newest intact one.
    report: called with a warning for each damaged checkpoint.

    Raises:
        EngineError: when there is no checkpoint, or it is damaged.
    """
    source = find_checkpoint(path, which, report)
    content = read_checkpoint(source)
    config, classes = content["config"], tuple(content["classes"])
    sampling = SamplingConfig(**config["sampling"])
    model = dsanet.build_model(
        config["model"], num_classes=len(classes), segments=sampling.segments, **config["network"]
    )
    model.load_state_dict(weights_to_evaluate(content))
    model.eval()
    return TrainedNetwork(
        model,
        name=config["model"],
        network=config["network"],
        sampling=sampling,
        classes=classes,
        size=config["augment"]["size"],
        source=source,
        samples=content["samples"],
        shards=content["shards"],
    )
