"""Adds DSA to any network that keeps the snippets of a video in the batch axis."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dsanet.dsa import DSA
from dsanet.errors import ModelError

CHILD = "dsa"


def insert_dsa(
    model: nn.Module,
    where: str | Sequence[str],
    *,
    segments: int = 4,
    frames: int = 1,
    **options: Any,
) -> list[str]:
    """Add a DSA module after named sub-modules of a network, in place; return their names.

    The network's code and the names in its state dict stay (section 3.4): each named module gains
    a child ``dsa`` that mixes its output. Outputs must be clips (B*U, C, T, H, W), or folded frames
    (B*U*T, C, H, W) with ``frames`` = T; the snippets of a video are neighbours in the batch axis.
    The memory layout is kept. Insert before wrapping in DDP or ``torch.compile`` and before
    building the optimizer.

    Args:
        model: the network to change.
        where: names as in ``model.named_modules()``; ``*`` matches one part of a name
            ("layer3.*.conv1").
        segments: U.
        frames: T of 4-D maps; 5-D maps have it in their shape.
        options: ``alpha``, ``beta`` and ``kernel_size`` of ``DSA``.

    Raises:
        ModelError: an unknown name, a module that already has a ``dsa`` child or is a container
            without an output, or an option out of range; on the first forward pass, an output
            that is not a feature map or does not divide into videos.
    """
    patterns = [where] if isinstance(where, str) else list(where)
    modules = dict(model.named_modules())
    names = list(dict.fromkeys(name for p in patterns for name in _match(p, list(modules))))
    for name in names:
        _check(name, modules[name])
    device, dtype = _device_and_dtype(model)
    for name in names:
        dsa = DSA(segments, frames=frames, **options).to(device=device, dtype=dtype)
        _attach(modules[name], dsa.train(modules[name].training))
    return names


def _match(pattern: str, names: list[str]) -> list[str]:
    expression = re.escape(pattern).replace(r"\*", r"[^.]+")
    matches = [name for name in names if name and re.fullmatch(expression, name)]
    if not matches:
        near = difflib.get_close_matches(pattern, names, n=3) or names[1:4]
        raise ModelError(f"no sub-module is named {pattern!r}; did you mean {', '.join(near)}?")
    return matches


def _check(name: str, module: nn.Module) -> None:
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        raise ModelError(f"{name} is a list of modules without an output; name its members")
    if hasattr(module, CHILD):
        raise ModelError(f"{name} already has a sub-module {CHILD!r}")


def _device_and_dtype(model: nn.Module) -> tuple[Any, Any]:
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return (None, None) if first is None else (first.device, first.dtype)


def _attach(module: nn.Module, dsa: DSA) -> None:
    """Add DSA as a child and, except in a Sequential, which runs its children itself, a hook."""
    module.add_module(CHILD, dsa)
    if type(module).forward is not nn.Sequential.forward:
        module.register_forward_hook(_mix_output)


def _mix_output(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    # A module-level function, not a closure, so that the network can be copied and pickled.
    if not isinstance(output, Tensor):
        raise ModelError(f"the output of {type(module).__name__} is not a tensor that DSA can mix")
    return getattr(module, CHILD)(output)
