"""From uint8 clips to logits: normalise, fold, run the trunk, pool, classify, average snippets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsanet.errors import ModelError
from dsanet.folding import accurate
from dsanet.trunk import Trunk

# ImageNet's RGB statistics in units of a byte, as the released configuration has them.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class Recognizer(nn.Module):
    """A trunk with its classifier: uint8 (B, U, T, H, W, 3) -> float32 logits (B, classes).

    ``segments`` is the U that the trunk needs because it mixes snippets, or None where any number
    is averaged; ``train_segments`` is the U it is meant to be trained with (1: clip-based). Logits,
    not probabilities, are averaged over the snippets, as TSN and the released code do; dropout
    draws one mask per snippet.

    ``scale`` and ``shift`` normalise the bytes, inside the graph so that a compiled network reads
    the clip once. They are no part of the state dict.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        trunk: Trunk,
        num_classes: int,
        *,
        segments: int | None = None,
        train_segments: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(trunk.channels, num_classes)
        self.segments = segments
        self.train_segments = train_segments
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("scale", (1 / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return self.fc.out_features

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, U, T, H, W, 3), contiguous -> float32 logits (B, classes).

        Raises:
            ModelError: another dtype or rank, or a U that a snippet-mixing network cannot take.
        """
        self._check(clips)
        snippets, frames = clips.shape[1], clips.shape[2]
        # NHWC bytes are a channels_last map already: both lines are views. The product promotes
        # bytes to float32 on the fly, without a converted copy of the clip.
        x = clips.flatten(0, 2).permute(0, 3, 1, 2)
        maps = self.trunk(x * self.scale + self.shift, frames)
        pooled = maps.permute(0, 2, 3, 1).unflatten(0, (-1, snippets, frames))
        features = pooled.mean(dim=(2, 3, 4), dtype=accurate(maps.dtype))  # (B, U, C)
        logits = self.fc(self.dropout(features))
        return logits.mean(dim=1, dtype=accurate(logits.dtype))

    def _check(self, clips: Tensor) -> None:
        if clips.dtype != torch.uint8 or clips.ndim != 6 or clips.shape[-1] != 3:
            raise ModelError(
                "clips must be uint8 (B, U, T, H, W, 3), not "
                f"{str(clips.dtype).removeprefix('torch.')} {tuple(clips.shape)}"
            )
        if self.segments is not None and clips.shape[1] != self.segments:
            raise ModelError(
                f"this network mixes {self.segments} snippets of a video, and the clip has "
                f"{clips.shape[1]}: give it {self.segments} at a time"
            )
