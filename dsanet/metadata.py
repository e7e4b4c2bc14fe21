"""What an exported network needs to be used: its input, its normalisation, its classes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

KEY = "dsanet"  # of the metadata as one JSON object, which load_weights reads
FORMAT = 1


@dataclass(frozen=True)
class ExportMetadata:
    """Metadata of an exported file.

    Attributes:
        model: name of the network.
        network: options with which it was built.
        segments, frames, size: U, T and the side in pixels of its input.
        mean, std: of red, green and blue on a scale of 0 to 255.
        num_classes: length of the logits.
        classes: names in the order of the logits; None where they are not known.
        training: what else is known about its training, such as the sampling of frames.
    """

    model: str
    network: dict[str, Any]
    segments: int
    frames: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_classes: int
    classes: tuple[str, ...] | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """The metadata as texts by name: each value as JSON, and all of them under "dsanet"."""
        values: dict[str, Any] = dict(vars(self))
        values["classes"] = None if self.classes is None else list(self.classes)
        whole = json.dumps({"format": FORMAT, **values})
        values["input"] = "clips: uint8 RGB (batch, segments, frames, size, size, 3)"
        values["output"] = "logits: float32 (batch, classes)"
        values["normalisation"] = "the network itself computes (clips - mean) / std"
        return {KEY: whole, **{name: json.dumps(value) for name, value in values.items()}}
