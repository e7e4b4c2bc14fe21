"""DSA behind any sub-modules of any network that keeps snippets in the batch axis."""

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
    """Put a DSA module behind named sub-modules of a network, in place; return their names.

    Plug and play, as section 3.4 claims: the network's code and its own state-dict names stay as
    they are, and each chosen module gains a child ``dsa`` that mixes its output. The outputs must
    be clips (B*U, C, T, H, W), or folded frames (B*U*T, C, H, W) with ``frames`` = T, the snippets
    of a video side by side in the batch axis (B*U, ...); their layout in memory is kept. Insert
    before wrapping in DDP or ``torch.compile`` and before building the optimizer.

    Args:
        where: names as in ``model.named_modules()``; ``*`` stands for one part of a name
            ("layer3.*.conv1").
        segments: U.
        frames: T of folded 4-D maps; 5-D maps tell it themselves.
        options: ``alpha``, ``beta`` and ``kernel_size`` of ``DSA``.

    Raises:
        ModelError: a name that is not there, a module that has a ``dsa`` child or is only a list
            of others, or an option out of range; on the first forward pass, an output that is no
            map or does not divide into videos.
    """
    patterns = [where] if isinstance(where, str) else list(where)
    modules = dict(model.named_modules())
    names = list(dict.fromkeys(name for p in patterns for name in _match(p, list(modules))))
    for name in names:
        _check(name, modules[name])
    device, dtype = _place(model)
    for name in names:
        dsa = DSA(segments, frames=frames, **options).to(device=device, dtype=dtype)
        _attach(modules[name], dsa.train(modules[name].training))
    return names


def _match(pattern: str, names: list[str]) -> list[str]:
    expression = re.escape(pattern).replace(r"\*", r"[^.]+")
    found = [name for name in names if name and re.fullmatch(expression, name)]
    if not found:
        near = difflib.get_close_matches(pattern, names, n=3) or names[1:4]
        raise ModelError(f"no sub-module is named {pattern!r}; near it: {', '.join(near)}")
    return found


def _check(name: str, module: nn.Module) -> None:
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        raise ModelError(f"{name} is a list of modules and has no output; name its members")
    if hasattr(module, CHILD):
        raise ModelError(f"{name} has a {CHILD!r} already")


def _place(model: nn.Module) -> tuple[Any, Any]:
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return (None, None) if first is None else (first.device, first.dtype)


def _attach(module: nn.Module, dsa: DSA) -> None:
    """A child and a hook that runs it; a plain Sequential runs its last child by itself."""
    module.add_module(CHILD, dsa)
    if type(module).forward is not nn.Sequential.forward:
        module.register_forward_hook(_mix)


def _mix(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    # A function of this file, not a closure: copies and pickles of the network keep it.
    if not isinstance(output, Tensor):
        raise ModelError(f"a {type(module).__name__} gives no tensor that DSA could mix")
    return getattr(module, CHILD)(output)
