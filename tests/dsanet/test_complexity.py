"""Counts against published figures and hand counts from layer shapes, and the printed tables."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benches.released_network import ReleasedNetwork, normalise, plan_for
from torch import nn

import dsanet
from dsanet.complexity import Complexity, View, count, count_model

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "classes", "view", "giga"),
    [
        ("dsa_i3d_r50", 400, View(4, 4), 83.49),
        ("dsa_i3d_r50", 400, View(4, 8), 166.97),
        ("dsa_i3d_r50", 400, View(4, 4, 256), 109.04),
        ("dsa_i3d_r50", 400, View(4, 8, 256), 218.08),
        ("i3d_r50", 400, View(4, 4), 83.48),
        ("i3d_r50", 400, View(1, 4), 20.87),
        ("i3d_r50", 400, View(1, 8), 41.74),
        ("i3d_r18", 400, View(4, 4), 54.91),
        ("dsa_i3d_r18", 200, View(4, 4), 54.91),
        ("tsm_r50", 400, View(1, 8), 32.70),
        ("dsa_tsm_r50", 174, View(4, 8), 130.79),
    ],
)
def test_multiply_adds(name, classes, view, giga):
    assert count_model(name, classes, view).multiply_adds / 1e9 == pytest.approx(giga, abs=0.0051)


@pytest.mark.parametrize(
    ("name", "view", "views", "giga"),
    [
        ("tsn_i3d_r50", View(4, 4), 1, "83.8"),
        ("dsa_i3d_r50", View(4, 4), 1, "83.8"),
        ("dsa_i3d_r50", View(4, 8), 1, "167.7"),
        ("v4d_i3d_r50", View(4, 8), 1, "286.1"),
        ("v4d_i3d_r50", View(4, 4), 1, "143.0"),
        ("dsa_i3d_r50", View(4, 4), 6, "503"),
        ("dsa_i3d_r50", View(4, 8), 6, "1006"),
        ("v4d_i3d_r50", View(4, 8), 7.5, "2146"),
    ],
)
def test_the_papers_figures(name, view, views, giga):
    digits = len(giga.partition(".")[2])
    ours = count_model(name, 400, view).paper * views / 1e9
    assert ours == pytest.approx(float(giga), abs=0.51 * 10**-digits)


def test_ensemble():
    both = [count_model("dsa_i3d_r50", 400, View(4, t)).paper * 6 / 1e9 for t in (4, 8)]
    assert round(sum(both)) == 1509


def by_hand(net: ReleasedNetwork, clips: torch.Tensor) -> Complexity:
    """Multiply-adds from the shapes that pass through the plain Conv3d network."""
    macs = norms = 0

    def record(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal macs, norms
        if isinstance(module, nn.Conv3d):
            macs += output.numel() * module.in_channels * math.prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm3d):
            norms += output.numel()

    for module in net.modules():
        module.register_forward_hook(record)
    with torch.no_grad():
        net.eval()(normalise(clips))
    parameters = sum(p.numel() for p in net.parameters())
    return Complexity(parameters, macs, 0, norms)


@pytest.mark.parametrize("name", dsanet.list_models())
def test_equals_a_hand_count(name, clips):
    ours = count_model(name, 5, View(4, 2, 64), width=16)
    theirs = by_hand(ReleasedNetwork(plan_for(name, width=16), 5), clips(B=1, T=2, size=64))
    assert ours.macs == theirs.macs
    assert ours.norm_elements == theirs.norm_elements
    assert ours.parameters == theirs.parameters


def test_the_aggregation_of_dsa_is_counted():
    """Eq. (3): L products for each of C / 8 channels, 5 modules in R50."""
    dsa = count_model("dsa_i3d_r50", 400)
    maps = 2 * 128 * 28 * 28 + 3 * 256 * 14 * 14
    assert dsa.aggregation == 16 * maps // 8 * 3


def test_counting_does_not_change_the_network(clips):
    model = dsanet.build_model("dsa_i3d_r18", num_classes=5, width=16)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    first = count(model, View(4, 2, 32))
    assert count(model, View(4, 2, 32)) == first
    assert model.training
    for n, t in model.state_dict().items():
        torch.testing.assert_close(t, before[n])


def test_an_empty_view_is_refused():
    with pytest.raises(dsanet.ModelError, match="frames must be at least 1, got 0"):
        count_model("i3d_r18", 5, View(1, 0, 224))


def tool(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/complexity.py"), *args]
    return subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )


def test_tool_prints_the_papers_tables():
    done = tool()
    assert done.returncode == 0, done.stderr
    for figure in ("83.84", "143.05", "1,509", "2,146", "31.92", "32.25", "32,454,456"):
        assert figure in done.stdout
    assert "v4d_i3d_r50 *" in done.stdout


def test_tool_refuses_a_wrong_name():
    done = tool("--model", "dsa_r50")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown network 'dsa_r50' (did you mean 'dsa_")
    assert "Traceback" not in done.stderr
