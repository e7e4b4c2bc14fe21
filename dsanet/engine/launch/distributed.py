"""The process group: this process's rank and device, and the collectives the engine uses."""

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
from dsanet.engine.launch.rendezvous import open_store, ranks_from_environment


@dataclass(frozen=True)
class World:
    """This process's place in the process group, and its collectives.

    A collective must be called by every process; with one process it does nothing.

    Attributes:
        rank: index of this process.
        size: number of processes.
        local_rank: index among the processes of this machine.
        device: device of the network and of the collectives.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which alone prints and writes files."""
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
        """The bytes of rank 0, on all processes."""
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
        """Texts of all processes, by rank."""
        return [data.decode() for data in self.gather_bytes(text.encode())]

    @torch.no_grad()
    def average_buffers(self, module: nn.Module) -> None:
        """Average BatchNorm's running statistics over processes, in place.

        They are linear in the batches, so how often they are averaged does not change their mean.
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


def count_processes(processes: Sequence[str]) -> str:
    """Count processes by host and device: `8 x node1 NVIDIA H100, 8 x node2 NVIDIA H100`."""
    return ", ".join(f"{count} x {host}" for host, count in Counter(processes).items())


def pick_device(wanted: str, local_rank: int) -> torch.device:
    """Choose the device of this process.

    With one visible GPU (`--gpus-per-task=1`) every local rank takes it; with several, each takes
    the one of its number.

    wanted: `auto` (a GPU if one is visible), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: when there is no such device.
    """
    named = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", wanted)
    if named is None:
        raise UsageError(f"device must be one of auto, cpu, cuda, cuda:N, got {wanted!r}")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(
            f"device {wanted}: torch {torch.__version__} finds no GPU; install a CUDA build of "
            "torch and a driver for it, or choose cpu"
        )
    visible = torch.cuda.device_count()
    if named[1]:
        if int(named[1]) >= visible:
            raise UsageError(
                f"device {wanted}: there is no such GPU; the last visible one is cuda:{visible - 1}"
            )
        return torch.device(wanted)
    if visible > 1 and local_rank >= visible:
        raise UsageError(
            f"{socket.gethostname()}: no GPU for local rank {local_rank}, only {visible} are "
            "visible; start one process per GPU"
        )
    return torch.device("cuda", local_rank if visible > 1 else 0)


def use_device(wanted: str, local_rank: int = 0) -> torch.device:
    """Choose the device of this process, see `pick_device`, and make it CUDA's current device.

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

    timeout_minutes: limit of a wait for other processes during the run.
    rendezvous_minutes: limit of the wait for all processes to start.

    Raises:
        EngineError: when the other processes cannot be reached.
    """
    rank, size, local_rank = ranks_from_environment()
    world = World(rank, size, local_rank, use_device(device, local_rank))
    if size == 1:
        return world
    on_gpu = world.device.type == "cuda"
    store = open_store(rank, size, rendezvous_minutes)
    limit = datetime.timedelta(minutes=timeout_minutes)
    store.set_timeout(limit)
    options: dict[str, Any] = {"device_id": world.device} if on_gpu else {}
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=limit,
            **options,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(
            f"rank {rank} of {size} cannot join the process group: {reason}"
        ) from error
    return world


def disconnect() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
