"""Every map is channels_last, folding is a view, and a step copies no map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import dsanet
from dsanet.convs import TemporalConv, V4DBlock, VolumeConv

SMALL = {"num_classes": 5, "width": 16, "dropout": 0.0}
COPIES = {"aten::clone", "aten::contiguous", "aten::_to_copy", "aten::to", "aten::copy_"}


def dense_last(x: Tensor) -> bool:
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", dsanet.list_models())
def test_every_map_is_channels_last(name, clips):
    """Checks all 4-D and 5-D inputs and outputs of modules in a training step."""
    model = dsanet.build_model(name, **SMALL)
    maps = []

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        for x in (inputs[0], output):
            if x.ndim in (4, 5) and x.shape[-1] > 1:
                maps.append((module.__class__.__name__, dense_last(x), x.stride()))

    for module in model.trunk.modules():
        module.register_forward_hook(record)
    model(clips(size=64))
    assert len(maps) > 30
    assert [entry for entry in maps if not entry[1]] == []


def test_weights_are_channels_last():
    for name in dsanet.list_models():
        model = dsanet.build_model(name, **SMALL)
        assert all(dense_last(p) for p in model.parameters() if p.ndim > 3)


@pytest.mark.parametrize("name", ["i3d_r50", "v4d_i3d_r18", "se_i3d_r18"])
def test_gradients_have_the_strides_of_their_weights(name, clips):
    """Otherwise DDP would copy them and warn; kernels of one tap fit two layouts."""
    model = dsanet.build_model(name, **SMALL)
    model(clips(size=32)).sum().backward()
    kernels = [p for p in model.parameters() if p.ndim > 3]
    assert any(p[0, 0].numel() == 1 for p in kernels)
    assert [p.shape for p in kernels if p.grad.stride() != p.stride()] == []


@pytest.mark.parametrize(
    ("conv", "kernel"), [(TemporalConv(8, 8), "conv2d"), (VolumeConv(8, 8, 3), "conv3d")]
)
def test_folding_copies_nothing(conv, kernel, monkeypatch):
    """The input of the convolution is a view of the map."""
    inputs = []
    convolve = getattr(nn.functional, kernel)

    def record(x: Tensor, *args: object) -> Tensor:
        inputs.append(x)
        return convolve(x, *args)

    monkeypatch.setattr(nn.functional, kernel, record)
    x = torch.randn(6, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    conv(x, 3)
    assert inputs[0].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert dense_last(inputs[0])


def test_v4d_folding_copies_nothing():
    block, maps = V4DBlock(8, 4), []
    block.conv.register_forward_hook(lambda _m, i, o: maps.extend((i[0], o)))
    x = torch.randn(2 * 4 * 3, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    block(x, 3)
    assert maps[0].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert dense_last(maps[0])
    assert dense_last(maps[1])


def test_clips_become_maps_without_a_copy(clips):
    """The first map is a channels_last view of the loader's memory."""
    x = clips()
    folded = x.flatten(0, 2).permute(0, 3, 1, 2)
    assert folded.data_ptr() == x.data_ptr()
    assert dense_last(folded)


def copies(name: str, x: Tensor) -> list[tuple[str, list[int], str]]:
    """Copies of maps in one eager float32 training step: operation, shape, and its caller."""
    model = dsanet.build_model(name, **SMALL)
    model(x).sum().backward()  # allocates the gradients
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as run:
        model(x).sum().backward()
    weights = {tuple(p.shape) for p in model.parameters()}
    copied = []
    for event in run.events():
        shape = tuple(event.input_shapes[0]) if event.input_shapes else ()
        if event.name in COPIES and len(shape) >= 4 and shape not in weights:
            copied.append((event.name, shape, _cause(event)))
    return copied


def _cause(event) -> str:
    """The innermost operation around a copy that is not itself a copy."""
    while event is not None and event.name in COPIES:
        event = event.cpu_parent
    return event.name if event is not None else "the network itself"


@pytest.mark.parametrize("name", dsanet.list_models())
def test_no_hidden_copies_in_a_step(name, clips):
    """The only copies are arithmetic: bytes that become floats in the normalising product (once),
    and zero padding in DSA and in TSM's shift."""
    copied = copies(name, clips(size=64))
    causes = {cause for *_, cause in copied}
    assert causes <= {"aten::mul", "aten::constant_pad_nd"}, copied
    assert {shape for _, shape, cause in copied if cause == "aten::mul"} == {(32, 3, 64, 64)}
    pads = [shape for _, shape, cause in copied if cause == "aten::constant_pad_nd"]
    assert bool(pads) == ("dsa" in name or "tsm" in name)
