"""The head of the network is exact to float32 under autocast: pooling, classifier, averages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dsanet import build_model
from dsanet.inference import ClipShape, export_program
from dsanet.recognizer import Recognizer

TINY = {"width": 16, "blocks": (1, 1, 1, 1), "dropout": 0.0}
CLASSES = 400


def network(name: str = "dsa_i3d_r18") -> Recognizer:
    every = {"every": 1} if name.startswith(("dsa", "se")) else {}
    model = build_model(name, num_classes=CLASSES, **TINY, **every)
    nn.init.normal_(model.fc.weight)
    return model


def bf16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def ties_for_first(logits: Tensor) -> int:
    return int((logits.topk(2).values.diff().abs() == 0).sum())


def check_float32(logits: Tensor) -> None:
    """No tie for first, and no more repeated values than chance gives among 24-bit numbers."""
    assert logits.dtype == torch.float32
    assert ties_for_first(logits) == 0
    distinct = sum(len(row.unique()) for row in logits)
    assert distinct > 0.99 * logits.numel(), f"{distinct} distinct of {logits.numel()} logits"


@pytest.mark.parametrize(("name", "snippets"), [("i3d_r18", 1), ("dsa_i3d_r18", 4)])
def test_bf16_autocast_gives_distinct_logits(name, snippets, clips):
    model, x = network(name).eval(), clips(B=64, U=snippets, T=1)
    with torch.no_grad(), bf16():
        check_float32(model(x))


def test_compiled_network_gives_distinct_logits_under_autocast(clips):
    model, x = network().eval(), clips(B=16, T=1)
    run = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), bf16():
        check_float32(run(x))


def test_exported_program_gives_distinct_logits_under_autocast(clips):
    module = export_program(network(), ClipShape(4, 1, 32)).module()
    with torch.no_grad(), bf16():
        check_float32(module(clips(B=16, T=1)))


def test_classifier_is_exact_to_float32_under_autocast(clips):
    """Logits and gradients against float64, from the feature maps that the trunk has computed."""
    model, x = network(), clips(T=2)
    maps: list[Tensor] = []
    model.trunk.register_forward_hook(lambda _m, _i, out: maps.append(out))
    labels = torch.tensor([3, 7])
    with bf16():
        logits = model(x)
    weight, bias = model.fc.weight, model.fc.bias
    nn.functional.cross_entropy(logits, labels).backward()
    assert maps[0].dtype == torch.bfloat16

    pooled = maps[0].detach().double().unflatten(0, (2, 4, 2)).mean(dim=(2, 4, 5))
    double = [p.detach().double().requires_grad_() for p in (weight, bias)]
    expected = (pooled @ double[0].T + double[1]).mean(dim=1)
    nn.functional.cross_entropy(expected, labels).backward()
    pairs = [(logits, expected), (weight.grad, double[0].grad), (bias.grad, double[1].grad)]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
