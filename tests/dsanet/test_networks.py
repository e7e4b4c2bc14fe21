"""Every network against a plain Conv3d one: logits, gradients, running statistics (float64)."""

from __future__ import annotations

import pytest
import torch
from benches.released_network import normalise
from torch import nn

import dsanet
from dsanet.recognizer import MEAN, STD

SMALL = {"width": 16, "dropout": 0.0}
VARIANTS = [
    *((name, {}) for name in dsanet.list_models()),
    *(("dsa_i3d_r50", {"position": p, "stages": (5,), "beta": 1.0}) for p in ("I", "III", "IV")),
    *(("dsa_i3d_r18", {"position": p, "every": 1}) for p in ("I", "III")),
    ("dsa_i3d_r50", {"stages": (2, 3), "every": 3, "beta": 0.5, "alpha": 8}),
    ("dsa_i3d_r18", {"blocks": (1, 1, 2, 1), "every": 1, "alpha": 1}),
    ("dsa_tsm_r50", {"stages": (4, 5), "beta": 0.25}),
    ("se_i3d_r50", {"position": "IV", "stages": (2,)}),
    ("v4d_i3d_r50", {"stages": (5,)}),
]
OURS_TO_PLAN = {"kernel_size": "taps", "inflate_shortcuts": "wide_shortcuts"}


def pair(name, options, reference, translate, segments=4):
    """The network and its reference, same weights, float64."""
    plan = {OURS_TO_PLAN.get(k, k): v for k, v in options.items()}
    net = reference(name, segments=segments, **SMALL, **plan)
    model = dsanet.build_model(name, num_classes=5, segments=segments, **SMALL, **options).double()
    model.load_state_dict(translate(net, net.state_dict()))
    std = torch.tensor(STD, dtype=torch.float64)
    model.scale = (1 / std).view(1, 3, 1, 1)  # float64, as in the reference
    model.shift = (-torch.tensor(MEAN, dtype=torch.float64) / std).view(1, 3, 1, 1)
    return model, net


def assert_close(ours, theirs, name=""):
    scale = theirs.abs().max().clamp_min(1e-6)
    difference = (ours - theirs).abs().max() / scale
    assert difference < 1e-9, f"{name}: {difference:.2e} of its largest value"


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_training_step_equals_conv3d(name, options, reference, translate, clips):
    model, net = pair(name, options, reference, translate)
    x, labels = clips(T=3), torch.tensor([1, 4])
    ours, theirs = model(x), net(normalise(x, torch.float64))
    assert_close(ours, theirs, "logits")
    nn.functional.cross_entropy(ours, labels).backward()
    nn.functional.cross_entropy(theirs, labels).backward()
    expected = translate(net, {n: p.grad for n, p in net.named_parameters()})
    for n, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[n], f"gradient of {n}")
    statistics = translate(net, dict(net.named_buffers()))
    for n, buffer in model.named_buffers():
        if n.startswith("trunk."):
            assert_close(buffer.double(), statistics[n].double(), n)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_eval_equals_conv3d(name, options, reference, translate, clips):
    model, net = pair(name, options, reference, translate)
    x = clips(B=1, T=2, size=40)
    with torch.no_grad():
        assert_close(model.eval()(x), net.eval()(normalise(x, torch.float64)), "logits")


@pytest.mark.parametrize("name", ["dsa_i3d_r50", "v4d_i3d_r18"])
def test_other_numbers_of_snippets(name, reference, translate, clips):
    model, net = pair(name, {}, reference, translate, segments=3)
    x = clips(U=3, T=2)
    assert_close(model(x), net(normalise(x, torch.float64)), "logits")


def test_five_taps_over_snippets(reference, translate, clips):
    model, net = pair("dsa_i3d_r18", {"kernel_size": 5}, reference, translate)
    x = clips(T=2)
    assert_close(model(x), net(normalise(x, torch.float64)), "logits")


def test_inflated_shortcuts(reference, translate, clips):
    for name in ("i3d_r18", "i3d_r50"):
        model, net = pair(name, {"inflate_shortcuts": True}, reference, translate)
        x = clips(T=3)
        assert_close(model(x), net(normalise(x, torch.float64)), f"logits of {name}")


def test_float32_agrees_with_float64(reference, translate, clips):
    """The logits in float32 differ from those in float64 by rounding."""
    model, net = pair("dsa_i3d_r50", {}, reference, translate)
    x = clips()
    with torch.no_grad():
        exact = net.eval()(normalise(x, torch.float64))
        rounded = model.float().eval()(x)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 1e-4 * exact.abs().max()


def test_memory_layout_changes_nothing(clips):
    """Weights in the default layout, instead of channels_last, give the same logits."""
    model = dsanet.build_model("dsa_i3d_r18", num_classes=5, **SMALL).double().eval()
    x = clips()
    with torch.no_grad():
        expected = model(x)
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()
        torch.testing.assert_close(model(x), expected)
