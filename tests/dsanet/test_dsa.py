"""DSA against loops written from the equations, in every layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dsanet import DSA, ModelError
from dsanet.dsa import aggregate


def equations(dsa: DSA, v: torch.Tensor) -> torch.Tensor:
    """Eq. (2) to (4) of the paper for v (B, C, U, T, H, W), one index at a time."""
    B, C, U, T, H, W = v.shape
    c, L = int(dsa.beta * C), dsa.kernel_size
    pooled = torch.stack(
        [v[b, i, u].sum() / (T * H * W) for b in range(B) for i in range(c) for u in range(U)]
    )
    pooled = pooled.reshape(B * c, U)  # g(V)
    first, norm, _, second, _ = dsa.generate
    hidden = pooled @ first.weight.T
    if dsa.training:
        mean, variance = hidden.mean(0), ((hidden - hidden.mean(0)) ** 2).mean(0)
    else:
        mean, variance = norm.running_mean, norm.running_var
    hidden = (hidden - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    scores = hidden.clamp_min(0) @ second.weight.T
    K = (scores.exp() / scores.exp().sum(1, keepdim=True)).reshape(B, c, L)  # Eq. (2)
    rows = []
    for b in range(B):
        for i in range(C):
            for u in range(U):
                if i >= c:
                    rows.append(v[b, i, u])  # V2 of Eq. (4)
                    continue
                total = torch.zeros_like(v[b, i, u])
                for tap in range(L):
                    neighbour = u + tap - L // 2
                    if 0 <= neighbour < U:
                        total = total + K[b, i, tap] * v[b, i, neighbour]  # Eq. (3)
                rows.append(total)
    return torch.stack(rows).reshape(v.shape)


def fold(v: torch.Tensor, layout: str) -> torch.Tensor:
    """(B, C, U, T, H, W) -> 5-D clips or folded frames, in one of LAYOUTS."""
    clips = v.movedim(2, 1).flatten(0, 1)  # (B*U, C, T, H, W)
    if layout == "5d":
        return clips.contiguous()
    if layout == "5d channels_last":
        return clips.contiguous(memory_format=torch.channels_last_3d)
    frames = clips.movedim(2, 1).flatten(0, 1)
    last = layout == "4d channels_last"
    return frames.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


LAYOUTS = ["5d", "5d channels_last", "4d", "4d channels_last"]
OPTIONS = [
    {},
    {"beta": 1.0},
    {"beta": 0.5, "alpha": 1},
    {"beta": 0.25, "alpha": 8},
    {"kernel_size": 5, "beta": 0.5},
    {"kernel_size": 1, "beta": 0.5},
]


def make(**options) -> DSA:
    dsa = DSA(**options).double()
    norm = dsa.generate[1]
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return dsa


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_equations(options, training, layout):
    dsa = make(**options).train(training)
    v = torch.randn(2, 16, 4, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = fold(equations(dsa, v), layout)
    out = dsa(fold(v, layout), 3)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    inputs = (v, *dsa.parameters())
    ours = torch.autograd.grad((out * weight).sum(), inputs, retain_graph=True)
    theirs = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_kept(layout):
    x = fold(torch.randn(2, 16, 4, 3, 5, 7), layout)
    assert DSA()(x, 3).stride() == x.stride()


@pytest.mark.parametrize("segments", [2, 4, 5])
def test_constant_generator_is_the_zero_padded_mean(segments):
    dsa = DSA(segments, beta=0.5)
    nn.init.zeros_(dsa.generate[3].weight)  # equal scores: a third for each tap
    x = torch.randn(2 * segments, 8, 3, 2, 2)
    v = x.view(2, segments, 8, 3, 2, 2)
    expected = v.clone()
    for u in range(segments):
        near = [v[:, n, :4] for n in (u - 1, u, u + 1) if 0 <= n < segments]
        expected[:, u, :4] = torch.stack(near).sum(0) / 3
    torch.testing.assert_close(dsa(x), expected.view_as(x))


def test_kernel_is_a_distribution_over_taps():
    kernel = DSA(beta=1.0).kernel(torch.randn(3, 4, 2, 6, 5, 5), axis=3)
    assert kernel.shape == (3, 6, 3)
    torch.testing.assert_close(kernel.sum(-1), torch.ones(3, 6))
    assert (kernel > 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_one_video_at_a_time(training):
    out = DSA().train(training)(torch.randn(4, 16, 2, 3, 3))
    assert out.isfinite().all()


def test_parameters_are_72():
    assert sum(p.numel() for p in DSA().parameters()) == 72


def test_statistics_stay_float32_under_autocast():
    dsa, x = DSA(beta=0.5), torch.randn(8, 16, 2, 4, 4)
    full = dsa(x)
    dtypes = []
    dsa.generate[0].register_forward_hook(lambda _m, i, o: dtypes.extend((i[0].dtype, o.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = dsa(x.bfloat16())
    assert dtypes == [torch.float32, torch.float32]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), full, rtol=0.02, atol=0.02)


def test_aggregate_weights_neighbours_in_order():
    """Tap 0 is the snippet before, tap 2 the one after: correlation, not convolution."""
    v = torch.tensor([[[1.0], [10.0], [100.0]]])  # (1, U=3, c=1)
    kernel = torch.tensor([[[2.0, 3.0, 5.0]]])
    assert aggregate(v, kernel, axis=2).flatten().tolist() == [53.0, 532.0, 320.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 1}, "segments must be at least 2, got 1"),
        ({"alpha": 0}, "alpha must be at least 1, got 0"),
        ({"beta": 0.0}, "beta must be in .0, 1., got 0.0"),
        ({"beta": 1.5}, "beta must be in .0, 1., got 1.5"),
        ({"kernel_size": 2}, "kernel_size must be odd, got 2"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        DSA(**options)


def test_a_batch_that_does_not_divide_into_videos_is_refused():
    with pytest.raises(ModelError, match="multiple of 4 snippets x 1 frames, got 6"):
        DSA(4)(torch.randn(6, 16, 2, 4, 4))


def test_too_few_channels_are_refused():
    with pytest.raises(ModelError, match="beta must select at least 2 of 8 channels"):
        DSA(4)(torch.randn(4, 8, 2, 4, 4))
