"""Parameters and multiply-adds: torch's own counter, and the paper's way of counting beside it."""

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
    """One pass of a network: U snippets of T frames of size x size pixels."""

    segments: int = 4
    frames: int = 4
    size: int = 224

    def __str__(self) -> str:
        return f"U{self.segments} x T{self.frames} x {self.size}"


@dataclass(frozen=True)
class Complexity:
    """What one view of one video costs.

    ``macs``: multiply-adds of convolutions and linear layers, half of what torch's
    ``FlopCounterMode`` counts. ``aggregation``: those of Eq. (3), plain products to torch.
    ``norm_elements``: elements that batch norms write; the paper's counter charges two operations
    for each, beside one per multiply-add.
    """

    parameters: int
    macs: int
    aggregation: int
    norm_elements: int

    @property
    def multiply_adds(self) -> int:
        """All multiply-adds: torch's and DSA's."""
        return self.macs + self.aggregation

    @property
    def paper(self) -> int:
        """The paper's "FLOPs": a multiply-add is one, a batch-normalised element two."""
        return self.multiply_adds + 2 * self.norm_elements


def count(model: Recognizer, view: View = View()) -> Complexity:
    """Count a network for one ``view``; on the meta device nothing is computed.

    Raises:
        ModelError: a view whose U the network cannot take.
    """
    device = next(model.parameters()).device
    shape = (1, view.segments, view.frames, view.size, view.size, 3)
    tally = _Tally()
    hooks = [m.register_forward_hook(tally.note) for m in model.modules()]
    training = model.training
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.zeros(shape, dtype=torch.uint8, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    macs = counter.get_total_flops() // 2
    return Complexity(parameters, macs, tally.aggregation, tally.norm_elements)


def count_model(name: str, num_classes: int, view: View = View(), **options: Any) -> Complexity:
    """Count a network by name without allocating it; options as in ``build_model``.

    Raises:
        ModelError: as ``build_model``, or a view of no size.
    """
    for option, least in (("segments", 1), ("frames", 1), ("size", 32)):
        value = getattr(view, option)
        require(value >= least, option, f"be at least {least}", value, ModelError)
    with torch.device("meta"):
        model = build_model(name, num_classes=num_classes, segments=view.segments, **options)
    return count(model, view)


class _Tally:
    """What forward hooks add up."""

    def __init__(self) -> None:
        self.aggregation = 0
        self.norm_elements = 0

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            self.norm_elements += output.numel()
        if isinstance(module, DSA):
            channels = output.shape[1]
            mixed = aggregated_channels(channels, module.beta)
            self.aggregation += output.numel() // channels * mixed * module.kernel_size
