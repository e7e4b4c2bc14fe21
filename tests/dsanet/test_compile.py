"""torch.compile: one graph forward and backward, compiled once; autocast within a tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dsanet

SMALL = {"num_classes": 5, "width": 16, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def steps(model: nn.Module, run: nn.Module, batches: list[torch.Tensor]) -> list[float]:
    """Losses of a few SGD steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for i, x in enumerate(batches):
        loss = nn.functional.cross_entropy(run(x), torch.tensor([i % 5, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", dsanet.list_models())
def test_one_graph_and_no_recompilation(name, clips):
    """fullgraph=True raises at a graph break; the stance raises at a second compilation."""
    torch.manual_seed(1)
    model = dsanet.build_model(name, **SMALL)
    batches = [clips(T=2) for _ in range(3)]
    run = torch.compile(model, fullgraph=True, backend="aot_eager")
    eager = dsanet.build_model(name, **SMALL)
    eager.load_state_dict(model.state_dict())
    losses = steps(model, run, batches[:1])
    with torch.compiler.set_stance("fail_on_recompile"):
        losses += steps(model, run, batches[1:])
    expected = steps(eager, eager, batches[:1]) + steps(eager, eager, batches[1:])
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["dsa_i3d_r18", "dsa_tsm_r50"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_inductor(name, precision, clips):
    model = dsanet.build_model(name, blocks=(1, 1, 1, 1), every=1, **SMALL)
    x = clips(T=2)

    def run(network: nn.Module) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
            logits = network(x)
        weight = torch.linspace(-1, 1, 10).view(2, 5)
        return [logits, *torch.autograd.grad((logits * weight).sum(), list(model.parameters()))]

    ours, theirs = run(torch.compile(model, fullgraph=True)), run(model)
    tolerance = 1e-3 if precision == torch.float32 else 0.1
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * b.norm() + 1e-5


@pytest.mark.parametrize("name", dsanet.list_models())
def test_bf16_autocast_is_near_float32(name, clips):
    """Logits agree to 5 % of their size in eval mode (bfloat16 rounds to 0.4 %)."""
    model = dsanet.build_model(name, **SMALL).eval()
    nn.init.normal_(model.fc.weight, 0, 1.0)
    x = clips(B=4)
    with torch.no_grad():
        full = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.05 * full.norm()


def test_bf16_gradients_point_the_same_way(clips):
    model = dsanet.build_model("dsa_i3d_r50", **SMALL)
    x, labels = clips(B=4), torch.tensor([0, 1, 2, 3])

    def gradient(enabled: bool) -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    assert nn.functional.cosine_similarity(gradient(False), gradient(True), dim=0) > 0.98
