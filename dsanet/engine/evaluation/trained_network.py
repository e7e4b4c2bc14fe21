"""Loading a trained network: from a checkpoint, or from a file that tools/export.py wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import dsanet
from dsanet.engine.checkpoint import Report, find_checkpoint
from dsanet.engine.checkpoint_schema import check_network, sampling_of
from dsanet.engine.errors import EngineError
from dsanet.engine.run_state import read_checkpoint, weights_to_evaluate
from dsanet.exporting import read_exported
from dsanet.metadata import KEY
from dsanet.terminal import print_line
from dsanet.weights.files import read_file
from pipelines import SamplingConfig

EXPORTED = Path("model.safetensors")  # in a folder of tools/export.py --card


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


def find_trained(path: Path, which: str, report: Report = warn) -> Path:
    """The file that `load_trained` loads for a path: an intact checkpoint, or an exported file.

    Raises:
        EngineError: when there is none, or the one asked for is damaged.
    """
    exported = path / EXPORTED
    if path.suffix == EXPORTED.suffix and path.is_file():
        return path
    if exported.is_file() and not (path / "checkpoints").is_dir():
        return exported
    return find_checkpoint(path, which, report)


def load_trained(path: Path, which: str = "last", report: Report = warn) -> TrainedNetwork:
    """Load the network of a checkpoint, with averaged weights if the run has them.

    path: run folder, checkpoint file, exported .safetensors file, or a folder with one.
    which: of a run folder, `last` or `best`; where the last is damaged, the newest intact one.
    report: called with a warning for each damaged checkpoint.

    Raises:
        EngineError: when there is no checkpoint, or it is damaged.
        ModelError: when an exported file is damaged.
    """
    source = find_trained(path, which, report)
    if source.suffix == EXPORTED.suffix:
        return _load_exported(source)
    content = read_checkpoint(source)
    config, classes = content["config"], tuple(content["classes"])
    weights = weights_to_evaluate(content)
    check_network(content, weights, source)
    sampling = sampling_of(config)
    model = dsanet.build_model(
        config["model"], num_classes=len(classes), segments=sampling.segments, **config["network"]
    )
    model.load_state_dict(weights)
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


def _load_exported(path: Path) -> TrainedNetwork:
    """Load an exported file, whose metadata says all that is needed."""
    model = read_exported(path)
    metadata = json.loads(read_file(path).metadata[KEY])
    try:
        training = metadata["training"]
        return TrainedNetwork(
            model,
            name=metadata["model"],
            network=metadata["network"],
            sampling=SamplingConfig(**training["sampling"]),
            classes=tuple(metadata["classes"]),
            size=int(training.get("size", metadata["size"])),
            source=path,
            samples=int(training.get("samples", 0)),
            shards={name: training["shards"][name] for name in ("short_side", "fps")},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"{path}: does not say its classes and how it was trained; export it again with "
            "tools/export.py --checkpoint RUN"
        ) from error
