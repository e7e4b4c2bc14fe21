"""Parameters and multiply-adds of a network, counted as torch does and as the paper does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dsanet.dsa import DSA, aggregated_channels
from dsanet.errors import ModelError, require
from dsanet.recognizer import Recognizer
from dsanet.zoo import build_model


@dataclass(frozen=True)
class View:
    """Input of one forward pass: U snippets of T frames of size x size pixels."""

    segments: int = 4
    frames: int = 4
    size: int = 224

    def __str__(self) -> str:
        return f"U{self.segments} x T{self.frames} x {self.size}"


@dataclass(frozen=True)
class Complexity:
    """Cost of one view of one video.

    ``macs``: multiply-adds of convolutions and linear layers, half of what torch's
    ``FlopCounterMode`` counts. ``aggregation``: multiply-adds of Eq. (3), which torch does not
    count. ``norm_elements``: elements that batch norms write; the paper counts two operations for
    each of them and one for each multiply-add.
    """

    parameters: int
    macs: int
    aggregation: int
    norm_elements: int

    @property
    def multiply_adds(self) -> int:
        """All multiply-adds, DSA's included."""
        return self.macs + self.aggregation

    @property
    def paper(self) -> int:
        """The paper's "FLOPs": one for each multiply-add, two for each batch-normalised element."""
        return self.multiply_adds + 2 * self.norm_elements


def count(model: Recognizer, view: View = View()) -> Complexity:
    """Count the operations of a network for one ``view``; a network on meta computes nothing.

    Raises:
        ModelError: a view whose U is not the network's.
    """
    device = next(model.parameters()).device
    shape = (1, view.segments, view.frames, view.size, view.size, 3)
    counter = _Counter()
    hooks = [m.register_forward_hook(counter.record) for m in model.modules()]
    training = model.training
    try:
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            model.eval()(torch.zeros(shape, dtype=torch.uint8, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    macs = flops.get_total_flops() // 2
    return Complexity(parameters, macs, counter.aggregation, counter.norm_elements)


def count_model(name: str, num_classes: int, view: View = View(), **options: Any) -> Complexity:
    """Count the operations of a network by name, without allocating it.

    Options are those of ``build_model``.

    Raises:
        ModelError: as ``build_model``, or for an empty view.
    """
    for option, least in (("segments", 1), ("frames", 1), ("size", 32)):
        value = getattr(view, option)
        require(value >= least, option, f"be at least {least}", value, ModelError)
    with torch.device("meta"):
        model = build_model(name, num_classes=num_classes, segments=view.segments, **options)
    return count(model, view)


class _Counter:
    """Sums over the outputs of modules, filled by forward hooks."""

    def __init__(self) -> None:
        self.aggregation = 0
        self.norm_elements = 0

    def record(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            self.norm_elements += output.numel()
        if isinstance(module, DSA):
            channels = output.shape[1]
            mixed = aggregated_channels(channels, module.beta)
            self.aggregation += output.numel() // channels * mixed * module.kernel_size
