"""A network out of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import dsanet
from dsanet.engine.checkpoint import find_checkpoint, verify
from dsanet.engine.run_state import read_checkpoint, weights_to_evaluate
from pipelines import SamplingConfig


@dataclass(frozen=True)
class Trained:
    """A network out of a checkpoint, with what its inputs must be like.

    Attributes:
        source: the file it came from.
        size: side of its training crops.
        samples: videos it was trained on, counting repetitions.
        shards: settings of the shards it was trained on.
    """

    model: nn.Module
    name: str
    sampling: SamplingConfig
    classes: tuple[str, ...]
    size: int
    source: Path
    samples: int
    shards: dict[str, Any]


def load_trained(path: Path, which: str = "last") -> Trained:
    """Rebuild the network of a checkpoint, on the CPU, in evaluation mode.

    Averaged weights are taken where the run kept them.

    Raises:
        EngineError: when there is none or it is damaged.
    """
    source = find_checkpoint(path, which)
    verify(source)
    content = read_checkpoint(source)
    config, classes = content["config"], tuple(content["classes"])
    sampling = SamplingConfig(**config["sampling"])
    model = dsanet.build_model(
        config["model"], num_classes=len(classes), segments=sampling.segments, **config["network"]
    )
    model.load_state_dict(weights_to_evaluate(content))
    model.eval()
    size = config["augment"]["size"]
    name, samples, shards = config["model"], content["samples"], content["shards"]
    return Trained(model, name, sampling, classes, size, source, samples, shards)
