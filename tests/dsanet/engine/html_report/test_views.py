"""Frames and kernels of a report, against the module's own equation and the plan of the view."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dsanet
from dsanet.dsa import DSA
from dsanet.engine.evaluation.trained_network import TrainedNetwork
from dsanet.engine.html_report.views import KernelMap, kernel_uri, view_videos
from pipelines import SamplingConfig
from shards import open_split
from tests.conftest import CLASSES


def network(name: str) -> TrainedNetwork:
    options = {"width": 16, "blocks": (1, 2, 2, 1)}
    model = dsanet.build_model(name, num_classes=4, segments=2, **options).eval()
    sampling = SamplingConfig(segments=2, frames=2, stride=2)
    return TrainedNetwork(
        model,
        name=name,
        network=options,
        sampling=sampling,
        classes=CLASSES,
        size=32,
        source=Path("w.pt"),
        samples=0,
        shards={},
    )


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("name", ["dsa_i3d_r18", "tsn_i3d_r18"])
def test_every_video_has_a_frame_for_each_snippet_and_kernels_only_with_dsa(
    name: str, small_shards: Path
) -> None:
    trained, split = network(name), open_split(small_shards, "val")
    views = view_videos(trained, split, [5, 2])
    assert sorted(views) == [2, 5]
    blocks = [k for k, m in trained.model.named_modules() if isinstance(m, DSA)]
    for video, view in views.items():
        assert view.key == split.key(video)
        assert [decode(uri).shape for uri in view.frames] == [(112, 112, 3)] * 2
        assert [kernel.block for kernel in view.kernels] == blocks
        for kernel in view.kernels:
            np.testing.assert_allclose(kernel.weights.sum(1), 1, rtol=1e-5)
    assert views[2].frames != views[5].frames


def test_a_kernel_is_that_of_equation_2() -> None:
    from dsanet.engine.html_report.views import _kernels

    model = network("dsa_i3d_r18").model
    inputs: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, DSA):
            module.register_forward_pre_hook(lambda _, args, n=name: inputs.update({n: args[0]}))
    clips = torch.randint(0, 256, (1, 2, 2, 32, 32, 3), dtype=torch.uint8)
    for kernel in _kernels(model, clips):
        module, x = model.get_submodule(kernel.block), inputs[kernel.block]
        mixed = len(kernel.weights)
        for channel in range(mixed):  # pool over T, H and W, then the MLP, then the softmax
            pooled = x.unflatten(0, (2, -1))[:, :, channel].mean((1, 2, 3))
            expected = module.generate(pooled[None])[0]
            np.testing.assert_allclose(kernel.weights[channel], expected.detach(), rtol=1e-4)


def test_a_kernel_is_white_at_its_mean_and_red_above() -> None:
    even, skewed = np.full((4, 3), 1 / 3), np.tile([0.0, 1.0, 0.0], (4, 1))
    assert (decode(kernel_uri(KernelMap("b", even))) == 255).all()
    rows = decode(kernel_uri(KernelMap("b", skewed)))
    assert rows.shape == (3, 4, 3)
    assert rows[1, 0].tolist() == [178, 24, 43]
    assert rows[0, 0].tolist() == [33, 102, 172]
