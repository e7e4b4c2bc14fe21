"""Validation within training: what chooses the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dsanet import build_model
from dsanet.engine.config import TrainConfig, ValidationConfig
from dsanet.engine.evaluation.validate import Validator
from dsanet.engine.launch.distributed import World
from dsanet.engine.optim import ScheduleConfig
from dsanet.engine.report.console import Console
from pipelines import AugmentConfig, LoaderConfig, SamplingConfig
from shards import open_split


class Stub(nn.Module):
    """Logits that depend on the clip, with an offset for each video."""

    segments = None

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, U, T, H, W, 3) -> logits (B, 4)."""
        pixels = clips.flatten(1).float()
        logits = pixels.unflatten(1, (4, -1)).std(2)
        return logits + self.offset * torch.sin(pixels.sum(1, keepdim=True))


@pytest.fixture
def validator(tmp_path: Path) -> Iterator[Callable[[Path], Validator]]:
    """Builds the validator of a shard set."""
    made = []

    def build(shards: Path) -> Validator:
        config = TrainConfig(
            data=str(shards), model="m", out=str(tmp_path), compile=False,
            sampling=SamplingConfig(segments=2, frames=2, stride=2),
            augment=AugmentConfig(size=32), loader=LoaderConfig(threads=1, read_threads=1),
            validation=ValidationConfig(metric="map", per_gpu=3), schedule=ScheduleConfig(epochs=1),
        )  # fmt: skip
        made.append(Validator(config, World(), open_split(shards, "val"), "fp32", Console()))
        return made[-1]

    yield build
    for one in made:
        one.close()


def test_an_offset_per_video_does_not_choose_the_best(
    small_shards: Path, validator: Callable[[Path], Validator]
) -> None:
    """validation.metric map is the same for two networks with the same predictions."""
    run = validator(small_shards).run
    plain, offset = run(Stub(0)), run(Stub(50))
    assert 0.25 < plain["map"] < 1
    assert offset["map"] == pytest.approx(plain["map"])


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Give the batch norms of a network other weights and statistics, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean):
                values.copy_(torch.rand(values.shape, generator=generator) - 0.3)
            module.running_var.copy_(0.5 + torch.rand(values.shape, generator=generator))
    return model


def test_validation_scores_the_present_weights_with_folded_batch_norms(
    small_shards: Path, validator: Callable[[Path], Validator]
) -> None:
    one = validator(small_shards)
    model = build_model("dsa_i3d_r18", num_classes=4, segments=2, width=8)
    clips = torch.randint(0, 256, (2, 2, 2, 32, 32, 3), dtype=torch.uint8)
    for epoch in range(2):
        scorer = one.scorer(randomised(model, epoch))
        kinds = {type(module) for module in scorer.network.modules()}
        assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d}
        with torch.inference_mode():
            logits = model(clips)
        bound = 1e-5 * float(logits.abs().max())
        torch.testing.assert_close(scorer(clips), logits.numpy(), rtol=0, atol=bound)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
