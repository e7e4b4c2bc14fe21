"""The whole network: normalise uint8 clips, run the trunk, pool, classify, average snippets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsanet.errors import ModelError
from dsanet.folding import at_least_float32, autocast_disabled
from dsanet.trunk import Trunk

RGB = tuple[float, float, float]
# ImageNet's RGB statistics on a scale of 0 to 255, as in the released configuration.
MEAN: RGB = (123.675, 116.28, 103.53)
STD: RGB = (58.395, 57.12, 57.375)


class Recognizer(nn.Module):
    """A trunk with its classifier: uint8 (B, U, T, H, W, 3) -> float32 logits (B, classes).

    ``segments`` is the U that a network which mixes snippets needs, or None where any number of
    snippets is averaged. ``train_segments`` is the U to train with (1: clip-based). Logits, not
    probabilities, are averaged over the snippets, as in TSN and the released code. Dropout draws
    one mask per snippet. Pooling, classifier and average stay in float32 under autocast, forward
    and backward.

    ``mean`` and ``std`` are of RGB on a scale of 0 to 255. ``scale`` and ``shift`` normalise the
    bytes with them inside the graph, so that a compiled network reads the clip once. They are not
    in the state dict: they follow from the options of the network.
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
        mean: RGB = MEAN,
        std: RGB = STD,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(trunk.channels, num_classes)
        self.segments = segments
        self.train_segments = train_segments
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        self.mean, self.std = mean, std
        means, stds = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", (1 / stds).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-means / stds).view(1, 3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return self.fc.out_features

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, U, T, H, W, 3), contiguous -> float32 logits (B, classes).

        Raises:
            ModelError: clips of another dtype or shape, or a U other than ``segments``.
        """
        self._check(clips)
        snippets, frames = clips.shape[1], clips.shape[2]
        # Both lines are views, as NHWC bytes are a channels_last map. The product below promotes
        # bytes to float32 without a converted copy of the clip.
        x = clips.flatten(0, 2).permute(0, 3, 1, 2)
        maps = self.trunk(x * self.scale + self.shift, frames)
        pooled = maps.permute(0, 2, 3, 1).unflatten(0, (-1, snippets, frames))
        features = pooled.mean(dim=(2, 3, 4), dtype=at_least_float32(maps.dtype))  # (B, U, C)
        # bfloat16 has so few digits that many videos would have two best classes.
        with autocast_disabled(features.device.type):
            return self.fc(self.dropout(features)).mean(dim=1)

    def _check(self, clips: Tensor) -> None:
        if clips.dtype != torch.uint8 or clips.ndim != 6 or clips.shape[-1] != 3:
            raise ModelError(
                "clips must be uint8 (B, U, T, H, W, 3), got "
                f"{str(clips.dtype).removeprefix('torch.')} {tuple(clips.shape)}"
            )
        if self.segments is not None and clips.shape[1] != self.segments:
            raise ModelError(
                f"the network mixes {self.segments} snippets of a video: clips must have U = "
                f"{self.segments}, got {clips.shape[1]}"
            )
