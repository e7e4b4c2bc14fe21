"""SLOW (SlowOnly) of the SlowFast paper, Table 1: a plain function of tensors by name.

Stem 1x7x7, residual blocks whose first convolution has 3 taps over time in res4 and res5 alone,
strides in the 3x3 convolutions, batch norms with eps 1e-5; average over time and space, classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH, BLOCKS, CLASSES = 16, (1, 2, 2, 1), 5
State = dict[str, Tensor]


@dataclass(frozen=True)
class Names:
    """How a code base names the tensors; block: of stage n (2 to 5) and block i."""

    stem: str
    stem_norm: str
    block: str
    first_stage: int
    conv: str  # of the residual branch, with a letter
    norm: str
    shortcut: str
    shortcut_norm: str
    head: str

    def of_block(self, stage: int, index: int) -> str:
        return self.block.format(stage - 2 + self.first_stage, index)


PYSLOWFAST = Names(
    "s1.pathway0_stem.conv", "s1.pathway0_stem.bn", "s{}.pathway0_res{}.", 2,
    "branch2.{}", "branch2.{}_bn", "branch1", "branch1_bn", "head.projection",
)  # fmt: skip
PYTORCHVIDEO = Names(
    "blocks.0.conv", "blocks.0.norm", "blocks.{}.res_blocks.{}.", 1,
    "branch2.conv_{}", "branch2.norm_{}", "branch1_conv", "branch1_norm", "blocks.5.proj",
)  # fmt: skip


def random_state(names: Names, *, taps: int = 3) -> State:
    """Weights with the shapes of SLOW; taps: over time in res4 and res5."""
    state: State = {}

    def conv(name: str, norm: str, *shape: int) -> None:
        fan = shape[1] * shape[2] * shape[3] * shape[4]
        state[f"{name}.weight"] = torch.randn(shape) * (2 / fan) ** 0.5
        channels = shape[0]
        state[f"{norm}.weight"] = torch.rand(channels) + 0.5
        state[f"{norm}.bias"] = torch.randn(channels) * 0.2
        state[f"{norm}.running_mean"] = torch.randn(channels) * 0.2
        state[f"{norm}.running_var"] = torch.rand(channels) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    conv(names.stem, names.stem_norm, WIDTH, 3, 1, 7, 7)
    inputs = WIDTH
    for stage, block in _blocks():
        planes, prefix = WIDTH * 2 ** (stage - 2), names.of_block(stage, block)
        shapes = {
            "a": (planes, inputs, taps if stage > 3 else 1, 1, 1),
            "b": (planes, planes, 1, 3, 3),
            "c": (4 * planes, planes, 1, 1, 1),
        }
        for letter, shape in shapes.items():
            conv(prefix + names.conv.format(letter), prefix + names.norm.format(letter), *shape)
        if block == 0:
            shortcut, norm = prefix + names.shortcut, prefix + names.shortcut_norm
            conv(shortcut, norm, 4 * planes, inputs, 1, 1, 1)
        inputs = 4 * planes
    state[f"{names.head}.weight"] = torch.randn(CLASSES, inputs)
    state[f"{names.head}.bias"] = torch.randn(CLASSES)
    return state


def logits(state: State, names: Names, x: Tensor) -> Tensor:
    """Logits (B, classes) of normalised clips x (B, 3, T, H, W)."""
    w = {name: tensor.to(x.dtype) for name, tensor in state.items()}

    def conv(name: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = w[f"{name}.weight"]
        padding = [size // 2 for size in kernel.shape[2:]]
        y = F.conv3d(x, kernel, stride=(1, stride, stride), padding=padding)
        statistics = (w[f"{norm}.running_mean"], w[f"{norm}.running_var"])
        return F.batch_norm(y, *statistics, w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-5)

    x = conv(names.stem, names.stem_norm, x, 2).relu()
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, block in _blocks():
        prefix = names.of_block(stage, block)
        stride = 2 if block == 0 and stage > 2 else 1
        layers = [(prefix + names.conv.format(k), prefix + names.norm.format(k)) for k in "abc"]
        y = conv(*layers[0], x).relu()
        y = conv(*layers[1], y, stride).relu()
        y = conv(*layers[2], y)
        if block == 0:
            x = conv(prefix + names.shortcut, prefix + names.shortcut_norm, x, stride)
        x = (x + y).relu()
    return F.linear(x.mean((2, 3, 4)), w[f"{names.head}.weight"], w[f"{names.head}.bias"])


def _blocks() -> Iterator[tuple[int, int]]:
    return ((stage, i) for stage in range(2, 6) for i in range(BLOCKS[stage - 2]))
