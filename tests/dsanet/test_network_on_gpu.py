"""On a GPU: logits of the CPU, one compiled graph, channels_last maps, constant memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import dsanet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SMALL = {"num_classes": 5, "width": 32, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _tf32() -> Iterator[None]:
    """As in a run (`execution.configure`); without TF32 Inductor warns at a float32 product."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("name", dsanet.list_models())
def test_equals_the_cpu(name, clips):
    model = dsanet.build_model(name, **SMALL).double().eval()
    x = clips()
    with torch.no_grad():
        expected = model(x)
        ours = model.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["dsa_i3d_r50", "dsa_i3d_r18", "dsa_tsm_r50", "v4d_i3d_r18"])
def test_every_map_is_channels_last(name, clips):
    model = dsanet.build_model(name, **SMALL).cuda()
    lost = []

    def record(module: nn.Module, _inputs: tuple, out: torch.Tensor) -> None:
        layout = torch.channels_last if out.ndim == 4 else torch.channels_last_3d
        if out.ndim in (4, 5) and not out.is_contiguous(memory_format=layout):
            lost.append((type(module).__name__, tuple(out.shape), out.stride()))

    for module in model.trunk.modules():
        module.register_forward_hook(record)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        model(clips(size=64).cuda())
    assert lost == []


@pytest.mark.parametrize("name", ["dsa_i3d_r50", "dsa_i3d_r18", "dsa_tsm_r50"])
def test_compiled_step(name, clips):
    """Inductor, bf16, forward and backward in one graph each; five steps, one compilation."""
    torch._dynamo.reset()
    model = dsanet.build_model(name, **SMALL).cuda()
    run = torch.compile(model, fullgraph=True, dynamic=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
    peaks = []
    for step in range(5):
        torch.cuda.reset_peak_memory_stats()
        stance = "fail_on_recompile" if step else "default"
        with torch.compiler.set_stance(stance), torch.autocast("cuda", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(run(clips().cuda()), torch.tensor([0, 1]).cuda())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        peaks.append(torch.cuda.max_memory_allocated())
        assert loss.isfinite()
    assert peaks[4] <= peaks[2] * 1.01
    torch._dynamo.reset()


def test_no_layout_kernels_in_a_compiled_step(clips):
    """No transposition kernel runs, as cuDNN and Inductor agree on channels_last."""
    torch._dynamo.reset()
    model = dsanet.build_model("dsa_i3d_r50", **SMALL).cuda()
    run, x = torch.compile(model, fullgraph=True, dynamic=False), clips(size=64).cuda()

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            run(x).sum().backward()

    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    kernels = {event.key for event in profiler.key_averages()}
    assert not [k for k in kernels if "nchwToNhwc" in k or "nhwcToNchw" in k]
    torch._dynamo.reset()
