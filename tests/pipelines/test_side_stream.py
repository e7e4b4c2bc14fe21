"""The order of copy, wait and release on the side stream, with stand-ins for CUDA's streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from pipelines.side_stream import SideStream


class Stream:
    """Records what waits for it."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def wait_stream(self, other: Stream) -> None:
        self.events.append(f"{self.name} waits for {other.name}")


class Cuda:
    """The functions of torch.cuda that the side stream uses."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.current = Stream("consumer", self.events)

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        return Stream("side", self.events)

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        outer, self.current = self.current, stream
        yield
        self.current = outer

    def current_stream(self, device: torch.device) -> Stream:
        return self.current


class Clips:
    """A tensor that records its copy and its users."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def to(self, device: torch.device, non_blocking: bool) -> Clips:
        assert non_blocking
        self.cuda.events.append(f"copy to {device} on {self.cuda.current.name}")
        return Clips(self.cuda)

    def record_stream(self, stream: Stream) -> None:
        self.cuda.events.append(f"memory in use by {stream.name}")


def test_the_consumer_waits_for_the_copy_but_the_copy_not_for_the_consumer() -> None:
    cuda = Cuda()
    side = SideStream(torch.device("cuda", 1), cuda)
    moved = side.copy(Clips(cuda))  # type: ignore[arg-type]
    assert isinstance(moved, Clips)
    assert cuda.events == [
        "copy to cuda:1 on side",
        "consumer waits for side",
        "memory in use by consumer",
    ]
    assert cuda.current.name == "consumer"


@pytest.mark.gpu
def test_copies_beside_queued_work_arrive_whole() -> None:
    device = torch.device("cuda", 0)
    side, busy = SideStream(device), torch.randn(4096, 4096, device=device)
    totals = []
    for value in range(8):
        for _ in range(20):  # some 50 ms of work that a copy on this stream would wait for
            busy = busy @ busy * 1e-4
        clips = torch.full((16 << 20,), value, dtype=torch.uint8, pin_memory=True)
        moved = side.copy(clips)
        del clips
        totals.append(moved.sum(dtype=torch.int64))
        del moved  # its memory must not be given to the next copy while the sum is queued
    assert [int(t) for t in totals] == [value * (16 << 20) for value in range(8)]
