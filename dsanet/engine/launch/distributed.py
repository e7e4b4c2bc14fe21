"""Ranks, devices, and the few collectives the engine needs."""

from __future__ import annotations

import datetime
import os
import re
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.launch.rendezvous import launched, meet


@dataclass(frozen=True)
class World:
    """Who this process is.

    Attributes:
        rank: index of this process among all.
        size: number of processes.
        local_rank: index among the processes of this machine.
        device: where the network lives.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    @property
    def main(self) -> bool:
        """Whether this process writes the files and the screen."""
        return self.rank == 0

    def describe(self) -> str:
        """Host and device of this process."""
        if self.device.type != "cuda":
            return f"{socket.gethostname()} cpu ({len(os.sched_getaffinity(0))} cores)"
        return f"{socket.gethostname()} {torch.cuda.get_device_name(self.device)}"

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Arrays of all processes, which must have the same shape and type, by rank."""
        if self.size == 1:
            return [array]
        local = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local)
        return [part.cpu().numpy() for part in parts]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Bytes of all processes, of any length, by rank."""
        lengths = [int(n[0]) for n in self.gather(np.array([len(data)], np.int64))]
        buffer = np.zeros(max(*lengths, 1), np.uint8)
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
        rows = self.gather(buffer)
        return [bytes(row[:n]) for row, n in zip(rows, lengths, strict=True)]

    def broadcast(self, data: bytes) -> bytes:
        """The first process's bytes, on all."""
        if self.size == 1:
            return data
        length = int(self.gather(np.array([len(data)], np.int64))[0][0])
        buffer = torch.zeros(length, dtype=torch.uint8)
        if self.main and data:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        buffer = buffer.to(self.device)
        dist.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()

    def gather_text(self, text: str) -> list[str]:
        """A text of each process, by rank."""
        return [data.decode() for data in self.gather_bytes(text.encode())]

    @torch.no_grad()
    def average_buffers(self, module: nn.Module) -> None:
        """Mean of BatchNorm's running statistics over processes, in place.

        Running statistics move linearly, so averaging them more or less often leaves their final
        mean as it is.
        """
        if self.size == 1:
            return
        buffers = [b for name, b in module.named_buffers() if "running_" in name]
        if not buffers:
            return
        flat = torch.cat([b.reshape(-1).float() for b in buffers])
        dist.all_reduce(flat)
        flat /= self.size
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def roll_call(processes: Sequence[str]) -> str:
    """Processes by host and device: `8 x node1 NVIDIA H100, 8 x node2 NVIDIA H100`."""
    return ", ".join(f"{count} x {host}" for host, count in Counter(processes).items())


def pick_device(wanted: str, local_rank: int) -> torch.device:
    """The device of this process, chosen among what it can see.

    With one visible GPU (`--gpus-per-task=1`) every local rank takes it; with several, its own.

    Raises:
        UsageError: when there is no such device.
    """
    named = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", wanted)
    if named is None:
        raise UsageError(f"device {wanted!r}: must be auto, cpu, cuda, or one GPU, such as cuda:0")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(
            f"device {wanted}: this torch {torch.__version__} sees no GPU; install a CUDA build "
            "of torch and a driver for it, or take cpu"
        )
    visible = torch.cuda.device_count()
    if named[1]:
        if int(named[1]) >= visible:
            raise UsageError(f"device {wanted}: {visible} visible, the last is cuda:{visible - 1}")
        return torch.device(wanted)
    if visible > 1 and local_rank >= visible:
        raise UsageError(
            f"{socket.gethostname()}: task {local_rank} of this node has no GPU, {visible} are "
            "visible; start one task per GPU"
        )
    return torch.device("cuda", local_rank if visible > 1 else 0)


def use_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device of this process, made the one that CUDA takes where none is named.

    Raises:
        UsageError: when there is no such device.
    """
    device = pick_device(wanted, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def connect(
    device: str = "auto", timeout_minutes: float = 60, rendezvous_minutes: float = 10
) -> World:
    """Join the process group that the environment describes: NCCL on GPUs, gloo otherwise.

    timeout_minutes bounds each wait for the others once all have come, rendezvous_minutes the wait
    until they have.

    Raises:
        EngineError: when the other processes cannot be reached.
    """
    rank, size, local_rank = launched()
    world = World(rank, size, local_rank, use_device(device, local_rank))
    where = world.device
    if size == 1:
        return world
    store = meet(rank, size, rendezvous_minutes)
    limit = datetime.timedelta(minutes=timeout_minutes)
    store.set_timeout(limit)
    options: dict[str, Any] = {"device_id": where} if where.type == "cuda" else {}
    try:
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=limit,
            **options,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(f"rank {rank} of {size} cannot join the others: {reason}") from error
    return world


def disconnect() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
