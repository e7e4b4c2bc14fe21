"""Checks before a run: shards, disk space, steps on noise, and one batch of each loader."""

from __future__ import annotations

import copy
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from dsanet.engine.environment import torch_faults
from dsanet.engine.errors import EngineError
from dsanet.engine.execution import autocast
from dsanet.engine.launch.distributed import World
from dsanet.engine.loader_check import GIB, GpuMemory, check_loaders, describe_memory
from dsanet.engine.loss import Targets, cross_entropy
from dsanet.engine.report.console import format_duration
from dsanet.engine.setup import Training
from pipelines.hang_limits import time_limit
from shards import Split
from shards.format.index import check_idx_files

# What is timed: calls that take this long together, but not fewer or more than these.
WARM_SECONDS, MIN_CALLS, MAX_CALLS = 2.0, 3, 30


def preflight(training: Training) -> None:
    """Try what could fail later in the run, and print the time and disk space it will need.

    The run is not changed: buffers are restored, and generators are seeded at each step anyway.

    Raises:
        EngineError: naming what would fail.
    """
    state, validator, console = training.state, training.validator, training.console
    if training.world.device.type == "cuda":
        for fault in torch_faults(str(torch.__version__)):
            console.print(f"WARNING: {fault}")
    for split in [state.split, *([validator.split] if validator else [])]:
        with time_limit(training.config.loader.hang):
            check_tars(split)
        if training.config.loader.reader == "webdataset":
            check_idx_files(split)
    size = sum(tensor.nbytes for tensor in _tensors(state.state_dict()))
    check_disk(training, size)
    step, validation = time_step_and_validation(training)
    if state.samples >= state.layout.total:
        return
    console.print(estimate(training, step, validation, size))
    before = GpuMemory.now(training.world)
    check_loaders(training, validate=validations_left(training) > 0)
    after = GpuMemory.now(training.world)
    if before is not None and after is not None:
        peak = torch.cuda.max_memory_allocated(training.world.device)
        console.print(describe_memory(before, after, size, peak))
    if (speed := allreduce_speed(training)) is not None:
        count = training.world.size
        console.print(f"all-reduce of gradients: {speed:.1f} GB/s over {count} processes")


def check_tars(split: Split) -> None:
    """Check the size of every tar of a split.

    Raises:
        EngineError: naming the first one that is missing or of another size.
    """
    for path, entry in zip(split.tars, split.manifest["tars"], strict=True):
        size = path.stat().st_size if path.is_file() else -1
        if size != entry["size"]:
            state = "missing" if size < 0 else f"has {size} bytes instead of {entry['size']}"
            raise EngineError(f"{path}: {state}; copy it again, or run tools/shard.py verify")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def check_disk(training: Training, size: int) -> None:
    """Check that the disk of the run folder has space for its checkpoints.

    size: bytes of one checkpoint.

    Raises:
        EngineError: with the free and the needed space.
    """
    # While one is written there are also the best one and those to keep. The present ones will be
    # removed, so their space counts as free.
    folder, keep = training.folder, training.config.checkpoint.keep
    needed = size * (keep + 2)
    free = shutil.disk_usage(folder.path).free + folder.checkpoints.size()
    if free < needed:
        raise EngineError(
            f"{folder.path}: {free / GIB:.2f} GiB are free, its checkpoints need "
            f"{needed / GIB:.2f} GiB; free some space, or lower --checkpoint.keep"
        )


def _noise(training: Training, videos: int) -> torch.Tensor:
    """Random uint8 clips (videos, U, T, size, size, 3)."""
    sampling, size = training.config.sampling, training.config.augment.size
    shape = (videos, sampling.segments, sampling.frames, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=training.world.device)


def estimate(training: Training, step: float, validation: float, size: int) -> str:
    """One line on the time and disk space of the rest of the run.

    step, validation: seconds of a step and of a validation; size: bytes of a checkpoint.
    """
    layout = training.state.layout
    steps = (layout.total - training.state.samples) // layout.videos
    validations = validations_left(training)
    parts = [f"{steps} steps of {1000 * step:.0f} ms"]
    if validations:
        plural = "s" if validations > 1 else ""
        parts.append(f"{validations} validation{plural} of {format_duration(validation)}")
    total = format_duration(steps * step + validations * validation)
    return (
        f"estimate: {' and '.join(parts)}, {total} in all if loading keeps up; "
        f"{training.config.checkpoint.keep + 1} checkpoints of {size / GIB:.2f} GiB"
    )


def validations_left(training: Training) -> int:
    """Number of validations in the rest of the run."""
    if training.validator is None:
        return 0
    every, epochs = training.config.validation.every, training.state.layout.epochs
    rest = range(training.state.validated + 1, epochs + 1)
    return sum(epoch % every == 0 or epoch == epochs for epoch in rest)


def time_step_and_validation(training: Training) -> tuple[float, float]:
    """Seconds of a training step and of a validation, both on noise.

    Raises:
        EngineError: when the loss is not finite.
    """
    state = training.state
    buffers = copy.deepcopy(dict(state.model.named_buffers()))
    state.model.train()
    step = (
        time_warm(lambda: _forward_and_backward(training), training.world)
        * state.layout.accumulation
    )
    state.optimizer.zero_grad(set_to_none=True)
    for name, buffer in state.model.named_buffers():
        buffer.copy_(buffers[name])
    validation = 0.0
    if (validator := training.validator) is not None:
        clips = _noise(training, validator.loader.batch_size)
        scorer = validator.scorer(state.evaluated_model)
        batch = time_warm(lambda: scorer(clips), training.world)
        validation = batch * len(validator.loader)
    state.model.train()
    return step, validation


def time_warm(action: Callable[[], object], world: World) -> float:
    """The typical time in seconds of an action that waits for the device, once it is warm.

    A first call, which compiles and chooses algorithms, is not timed, and of the others the first
    half does not count: the first steps of a small network take several times as long as later
    ones. Every process makes the same number of calls, since collectives may be part of them.
    """
    action()
    probe = _seconds(action)
    calls = min(max(MIN_CALLS, round(WARM_SECONDS / max(probe, 1e-6))), MAX_CALLS)
    calls = int(world.gather(np.array([calls]))[0][0])
    seconds = [_seconds(action) for _ in range(calls)]
    return statistics.median(seconds[calls // 2 :])


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _forward_and_backward(training: Training) -> None:
    state, device = training.state, training.world.device
    labels = torch.zeros(state.layout.micro, dtype=torch.int64, device=device)
    with autocast(state.precision, device):
        logits = training.network(_noise(training, state.layout.micro))
    loss = cross_entropy(logits.float(), Targets(labels), 0.0)
    loss.backward()
    finite = bool(torch.isfinite(loss))  # also waits for the device
    if not finite and not state.samples:
        raise EngineError(
            "preflight: the loss on noise is not finite; check --weights, or try "
            "--runtime.precision fp32"
        )


def allreduce_speed(training: Training, rounds: int = 5) -> float | None:
    """Bus bandwidth in GB/s of an all-reduce as large as the gradients; None without GPUs."""
    world = training.world
    if world.size == 1 or world.device.type != "cuda":
        return None
    count = sum(p.numel() for p in training.state.model.parameters())
    buffer = torch.zeros(count, device=world.device)
    dist.all_reduce(buffer)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        dist.all_reduce(buffer)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / rounds
    return 2 * (world.size - 1) / world.size * buffer.nbytes / seconds / 1e9
