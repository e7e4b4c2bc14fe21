"""What is tried before hours are spent: shards, disk, one step and one validation batch."""

from __future__ import annotations

import copy
import datetime
import math
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from dsanet.engine.errors import EngineError
from dsanet.engine.execution import autocast
from dsanet.engine.loss import Targets, cross_entropy
from dsanet.engine.setup import Training
from shards import Split
from shards.format.index import check_idx_files

GIB = 2**30


def preflight(training: Training) -> None:
    """Try everything that could fail later, and estimate time and disk of the rest of the run.

    The run itself is not touched: buffers are put back, and generators are seeded at each step.

    Raises:
        EngineError: naming what would have failed.
    """
    t = training
    for split in [t.split, *([t.validator.split] if t.validator else [])]:
        check_tars(split)
        if t.config.loader.reader == "webdataset":
            check_idx_files(split)
    size = sum(tensor.nbytes for tensor in _tensors(t.state()))
    check_disk(t, size)
    step, validation = rehearse(t)
    if t.samples >= t.layout.total:
        return
    t.console.say(estimate(t, step, validation, size))
    if (speed := allreduce_speed(t)) is not None:
        t.console.say(f"all-reduce of gradients: {speed:.1f} GB/s over {t.world.size} processes")


def check_tars(split: Split) -> None:
    """Refuse a split whose tars are not there in full, by their sizes.

    Raises:
        EngineError: naming the first tar.
    """
    for path, entry in zip(split.tars, split.manifest["tars"], strict=True):
        size = path.stat().st_size if path.is_file() else -1
        if size != entry["size"]:
            state = "is missing" if size < 0 else f"has {size} bytes, not {entry['size']}"
            raise EngineError(f"{path} {state}: copy it again, or python tools/shard.py verify")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def check_disk(t: Training, size: int) -> None:
    """Refuse a run folder without room for its checkpoints.

    Raises:
        EngineError: with the room there is and the room that is needed.
    """
    # While one checkpoint is written the ones to keep and the best one are there; those that are
    # there already will make room.
    needed = size * (t.config.checkpoint.keep + 2)
    free = shutil.disk_usage(t.folder.path).free + t.folder.checkpoints.size()
    if free < needed:
        raise EngineError(
            f"{t.folder.path} has {free / GIB:.2f} GiB free, its checkpoints need "
            f"{needed / GIB:.2f}: make room, or lower --checkpoint.keep"
        )


def _clips(t: Training, videos: int) -> torch.Tensor:
    sampling, size = t.config.sampling, t.config.augment.size
    shape = (videos, sampling.segments, sampling.frames, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=t.world.device)


def estimate(t: Training, step: float, validation: float, size: int) -> str:
    """Time and disk of the rest of the run, from the seconds of a step and of a validation."""
    steps, rounds = (t.layout.total - t.samples) // t.layout.videos, validations_left(t)
    parts = [f"{steps} steps of {1000 * step:.0f} ms"]
    if rounds:
        parts.append(f"{rounds} validation{'s' if rounds > 1 else ''} of {_clock(validation)}")
    kept = t.config.checkpoint.keep + 1
    return (
        f"estimate: {' and '.join(parts)}, {_clock(steps * step + rounds * validation)} to the end "
        f"where data keep up; {kept} checkpoints of {size / GIB:.2f} GiB"
    )


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=math.ceil(seconds)))


def validations_left(t: Training) -> int:
    """How often the validation split will be scored."""
    if t.validator is None:
        return 0
    every, epochs = t.config.validation.every, t.layout.epochs
    return sum(e % every == 0 or e == epochs for e in range(t.validated + 1, epochs + 1))


def rehearse(t: Training) -> tuple[float, float]:
    """Run a step's passes and a validation batch on noise; seconds of a step and a validation.

    Raises:
        EngineError: when the network gives something else than finite logits.
    """
    buffers = copy.deepcopy(dict(t.model.named_buffers()))
    t.model.train()
    step = _timed(lambda: _passes(t)) * t.layout.accumulation
    t.optimizer.zero_grad(set_to_none=True)
    for name, buffer in t.model.named_buffers():
        buffer.copy_(buffers[name])
    validation = 0.0
    if (v := t.validator) is not None:
        clips = _clips(t, v.loader.batch_size)
        validation = _timed(lambda: v.rehearse(t.judged, clips)) * len(v.loader)
    t.model.train()
    return step, validation


def _timed(action: Callable[[], None], rounds: int = 3) -> float:
    """Seconds of an action that waits for the device: the least of some, after a first one that
    compiles and picks algorithms. As many on every process, which meet in them."""
    action()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _passes(t: Training) -> None:
    labels = torch.zeros(t.layout.micro, dtype=torch.int64, device=t.world.device)
    with autocast(t.precision, t.world.device):
        logits = t.network(_clips(t, t.layout.micro))
    loss = cross_entropy(logits.float(), Targets(labels), 0.0)
    loss.backward()
    finite = bool(torch.isfinite(loss))  # waits for the device, too
    if not finite and not t.samples:
        raise EngineError(
            "the network gives no finite loss on noise: the weights or the precision are at fault "
            "(try --runtime.precision fp32)"
        )


def allreduce_speed(t: Training, rounds: int = 5) -> float | None:
    """Bus bandwidth of an all-reduce as large as the gradients in GB/s, where there are GPUs."""
    if t.world.size == 1 or t.world.device.type != "cuda":
        return None
    count = sum(p.numel() for p in t.model.parameters())
    buffer = torch.zeros(count, device=t.world.device)
    dist.all_reduce(buffer)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        dist.all_reduce(buffer)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / rounds
    return 2 * (t.world.size - 1) / t.world.size * buffer.nbytes / seconds / 1e9
