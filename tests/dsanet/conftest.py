"""Small clips, and plain Conv3d networks with a translation of their tensor names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from benches.released_network import Backbone, Conv4d, Plan, ReleasedNetwork, plan_for
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def clips() -> Callable[..., Tensor]:
    """uint8 clips (B, U, T, size, size, 3)."""

    def make(B: int = 2, U: int = 4, T: int = 4, size: int = 32) -> Tensor:
        return torch.randint(0, 256, (B, U, T, size, size, 3), dtype=torch.uint8)

    return make


@pytest.fixture
def reference() -> Callable[..., ReleasedNetwork]:
    """A plain float64 network whose batch norms have random statistics."""

    def make(name: str, num_classes: int = 5, **options: object) -> ReleasedNetwork:
        net = ReleasedNetwork(plan_for(name, **options), num_classes).double()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
                nn.init.normal_(module.running_mean, 0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        nn.init.normal_(net.cls_head.fc_cls.weight, 0, 1.0)
        return net

    return make


@pytest.fixture
def translate() -> Callable[[ReleasedNetwork, dict[str, Tensor]], dict[str, Tensor]]:
    """Weights or gradients by the reference's names -> by the package's names."""

    def run(net: ReleasedNetwork, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = _move_conv4d(net.backbone, tensors)
        return {
            _our_name(name): _our_shape(name, t, net.backbone.plan) for name, t in moved.items()
        }

    return run


def _move_conv4d(backbone: Backbone, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move a 4-D block, which follows a residual block in the reference, into that block."""
    out = dict(tensors)
    for stage in (f"layer{i}" for i in range(1, 5)):
        before, blocks = -1, list(getattr(backbone, stage))
        for i, block in enumerate(blocks):
            old = f"backbone.{stage}.{i}."
            mine = {n: out.pop(n) for n in list(out) if n.startswith(old)}
            if not isinstance(block, Conv4d):
                before += 1
                out |= {n.replace(old, f"backbone.{stage}.{before}."): t for n, t in mine.items()}
                continue
            new = f"backbone.{stage}.{before}.dsa."
            taps = [mine.pop(n)[..., 0] for n in sorted(mine) if ".taps." in n]
            if taps:
                out[f"{new}conv.weight"] = torch.stack(taps, dim=2)
            out |= {n.replace(old, new): t for n, t in mine.items()}
    return out


def _our_name(name: str) -> str:
    pairs = {
        "backbone.": "trunk.",
        "cls_head.fc_cls.": "fc.",
        ".block.": ".",
        ".dsa.down.": ".mixer.excite.0.",
        ".dsa.up.": ".mixer.excite.2.",
        ".dsa.": ".mixer.",
        ".downsample.0.": ".shortcut.conv.",
        ".downsample.1.": ".shortcut.bn.",
    }
    for old, new in pairs.items():
        name = name.replace(old, new)
    return name


def _our_shape(name: str, tensor: Tensor, plan: Plan) -> Tensor:
    if tensor.ndim != 5 or "dsa.conv" in name:
        return tensor
    if tensor.shape[2] == 1:
        return tensor.squeeze(2)
    bottleneck_entry = plan.depth == 50 and "downsample" not in name
    return tensor.squeeze(-1) if bottleneck_entry else tensor
