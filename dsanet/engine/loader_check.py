"""A check of the loaders before a run: one real batch of each, and who owns the GPU's memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import torch

from dsanet.engine.errors import EngineError
from dsanet.engine.launch.distributed import World
from dsanet.engine.setup import Training
from dsanet.errors import UserError
from pipelines import LoaderError, LoaderUsageError
from pipelines.decode.gpu_libraries import missing_library
from pipelines.loader import Loader

GIB = 2**30


def check_loaders(training: Training, *, validate: bool = True) -> None:
    """Take one training batch and one validation batch on the device of the run.

    So a missing library, an old driver, a codec that the GPU does not decode or too little memory
    shows before the first step. The training batch stays the first one of the run. Where
    `loader.decode_on` is auto and the GPU cannot decode, all processes decode on the CPU instead,
    and a warning gives the reason.

    validate: whether the run will validate.

    Raises:
        LoaderError, EngineError: on all processes, with the reason of the first one that failed.
    """
    failure = _failure(training, validate)
    if failure is None:
        return
    if not _may_decode_on_cpu(training):
        raise failure
    training.console.print(
        f"WARNING: the GPU cannot decode: {failure}; videos are decoded on the CPU instead, as "
        "with --loader.decode_on cpu"
    )
    try:
        training.replace_loaders(replace(training.config.loader, decode_on="cpu"))
    except LoaderUsageError:  # these shards, or other settings, need the GPU
        raise failure from None
    failure = _failure(training, validate)
    if failure is not None:
        raise failure


def _may_decode_on_cpu(training: Training) -> bool:
    return training.loader.spec.mixed and training.config.loader.decode_on == "auto"


def _failure(training: Training, validate: bool) -> UserError | None:
    """The error of the first process whose loaders fail; every process must call it."""
    failure: UserError | None = None
    try:
        _take_batches(training, validate)
    except LoaderError as error:
        failure = error
    world = training.world
    for rank, text in enumerate(world.gather_text(str(failure or ""))):
        if text:
            return failure if rank == world.rank else EngineError(f"rank {rank}: {text}")
    return None


def _take_batches(training: Training, validate: bool) -> None:
    training.first_batch()
    _check_gpu_decode(training.loader)
    if validate and training.validator is not None:
        loader = training.validator.loader
        with contextlib.closing(iter(loader)) as batches:
            next(batches)
        _check_gpu_decode(loader)


def _check_gpu_decode(loader: Loader) -> None:
    """LoaderError where batches that the GPU should decode were decoded on the CPU."""
    if reason := missing_library(loader.spec):
        raise LoaderError(f"{reason}; or take loader.decode_on cpu")


@dataclass(frozen=True)
class GpuMemory:
    """Memory of a GPU at one moment, in bytes.

    Attributes:
        total, free: of the device.
        reserved: what torch holds of it.
    """

    total: int
    free: int
    reserved: int

    @staticmethod
    def now(world: World) -> GpuMemory | None:
        """The memory of this process's GPU; None without one."""
        if world.device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(world.device)
        return GpuMemory(total, free, torch.cuda.memory_reserved(world.device))


def describe_memory(before: GpuMemory, after: GpuMemory, network: int, peak: int) -> str:
    """One line on who owns the memory of the GPU.

    before, after: around `check_loaders`, in which DALI takes its memory.
    network: bytes of weights, optimiser and averaged weights; peak: largest sum of torch's tensors.
    """
    dali = max((before.free - after.free) - (after.reserved - before.reserved), 0)
    other = max(after.total - after.free - after.reserved - dali, 0)
    return (
        f"GPU memory of {after.total / GIB:.1f} GiB: {after.reserved / GIB:.1f} reserved by torch "
        f"(network and optimiser {network / GIB:.1f}, activations up to "
        f"{max(peak - network, 0) / GIB:.1f}), DALI {dali / GIB:.1f}, CUDA, NCCL and other "
        f"programs {other / GIB:.1f}, free {after.free / GIB:.1f}"
    )
