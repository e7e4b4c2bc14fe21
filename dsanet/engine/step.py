"""The work of one optimiser step on the device: forward and backward passes, and the update."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dsanet.engine.batching import every_nth
from dsanet.engine.execution import autocast
from dsanet.engine.loss import correct, cross_entropy, mix
from dsanet.engine.setup import Training
from pipelines import Batch
from pipelines.ranges import named_range


def seed_step(seed: int, step: int, group: int) -> np.random.Generator:
    """Seed torch's generators, for dropout, and return one for mixup, by (seed, step, group).

    No generator has to be saved, and the draws do not depend on which process has the group.
    """
    seeds = np.random.SeedSequence([seed, step, group])
    torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return np.random.default_rng(seeds)


def forward_backward(training: Training, batch: Batch) -> Tensor:
    """All passes of a step, which add up the gradient; returns (loss, videos recognised) (2,)."""
    total = torch.zeros(2, device=training.world.device)
    for part in range(training.state.layout.accumulation):
        total += _pass(training, batch, part)
    return total


def _pass(training: Training, batch: Batch, part: int) -> Tensor:
    """Forward and backward of one group; returns (loss, videos recognised), shape (2,).

    Groups are every G-th video of the step with all its views, G = processes x accumulation, so
    that BatchNorm, dropout and mixing see the same groups, with the same draws, whatever the number
    of processes.
    """
    config, state, world = training.config, training.state, training.world
    parts, repeats = state.layout.accumulation, config.augment.repeats
    generator = seed_step(config.seed, state.step, world.rank + part * world.size)
    labels = every_nth(batch.labels, part, parts, repeats)
    labels = labels.to(world.device, non_blocking=True)
    clips = every_nth(batch.clips, part, parts, repeats)
    clips, targets = mix(clips, labels, config.loss, generator)
    with _gradient_exchange(training, wanted=part == parts - 1):
        with named_range("forward"), autocast(state.precision, world.device):
            logits = training.network(clips)
        loss = cross_entropy(logits.float(), targets, config.loss.label_smoothing) / parts
        with named_range("backward"):
            state.scaler.scale(loss).backward()
    return torch.stack([loss.detach(), correct(logits.detach(), targets).float()])


def _gradient_exchange(
    training: Training, *, wanted: bool
) -> contextlib.AbstractContextManager[Any]:
    """Context of a backward pass that averages gradients over processes only if `wanted`.

    Once a step, in its last pass, is enough.
    """
    network = training.network
    if isinstance(network, DistributedDataParallel) and not wanted:
        return network.no_sync()
    return contextlib.nullcontext()


def update(training: Training) -> Tensor:
    """Clip and apply the gradient, unless it is not finite; returns its norm."""
    state = training.state
    with named_range("update"):
        state.scaler.unscale_(state.optimizer)
        bound = training.config.optim.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), bound)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average:
            state.average.update(state.model, state.step + 1)  # this one's update included
    return norm


@contextlib.contextmanager
def trial(training: Training) -> Iterator[None]:
    """Context for passes that leave no trace: buffers are restored to the bit, gradients dropped.

    (Generators are seeded in every pass of a run anyway.)
    """
    state = training.state
    buffers = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    state.model.train()
    try:
        yield
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in state.model.named_buffers():
                buffer.copy_(buffers[name])
