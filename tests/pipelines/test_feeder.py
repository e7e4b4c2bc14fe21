"""The two background threads, with a source and a decoder that hold no video."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import LoaderError
from pipelines import feeder as feeder_module
from pipelines.batch_source import BatchSource, LoadedBatch
from pipelines.decode.dali_errors import DecodeError
from pipelines.errors import HangError
from pipelines.feeder import EpochRequests, Feeder
from pipelines.plan.planner import BatchPlan
from pipelines.resources import LoaderResources
from pipelines.watchdog import Activity
from tests.alarm import alarm

BROKEN = 100  # what the decoder refuses


class Numbers(BatchSource[int]):
    """Batches of the numbers 2 n and 2 n + 1; some are broken, and one batch cannot be read."""

    def __init__(self, broken: tuple[int, ...] = (), unreadable: int = -1) -> None:
        self.broken, self.unreadable = broken, unreadable
        self.faults: list[dict[int, str]] = []

    def open(
        self,
        epoch: int,
        first: int = 0,
        state: bytes | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[int]:
        return iter(range(first, 8))

    def load(self, request: int) -> LoadedBatch:
        if request == self.unreadable:
            raise OSError("no such disk")
        ids = np.array([2 * request, 2 * request + 1])
        plan = BatchPlan(ids, ids, ids, ids, ids, ids, ids)
        encoded = [BROKEN if number in self.broken else number for number in ids.tolist()]
        return LoadedBatch(plan, [0, 1], encoded)

    def repair(self, batch: LoadedBatch, faults: dict[int, str]) -> None:
        self.faults.append(faults)
        for row in faults:
            batch.encoded[row] = -1

    def make_decoder(self, *, pinned: bool = False, prefetch: int = 2) -> Any:
        return Echo()

    def close(self) -> None:
        pass


class Echo:
    """Gives back what it gets, and refuses a batch with a broken number."""

    resizes_here = False

    def __init__(self) -> None:
        self.submitted: list[list[int]] = []

    def submit(self, batch: list[int]) -> None:
        self.submitted.append(list(batch))

    def collect(self) -> list[int]:
        batch = self.submitted.pop(0)
        if BROKEN in batch:
            raise DecodeError("broken")
        return batch

    def bisect(self, batch: list[int]) -> dict[int, str]:
        assert not self.submitted  # nothing else is in the graph
        return {row: "broken" for row, number in enumerate(batch) if number == BROKEN}


def feeder_of(source: Numbers) -> Feeder:
    epoch = EpochRequests(source.open(0), threading.Event())
    feeder = Feeder(source, epoch, source.make_decoder(), Activity(), prefetch=2)
    feeder.start()
    return feeder


def outputs(feeder: Feeder) -> list[list[int]]:
    """Outputs of the batches up to the end of the epoch."""
    result = []
    while (batch := feeder.get(60, 60)) is not None:
        result.append(batch.outputs)
    return result


def test_batches_keep_their_order_and_end():
    feeder = feeder_of(Numbers())
    assert outputs(feeder) == [[2 * n, 2 * n + 1] for n in range(8)]
    assert feeder.close()


def test_broken_videos_of_neighbouring_batches_are_repaired_in_their_places():
    source = Numbers(broken=(4, 6, 7))
    feeder = feeder_of(source)
    expected = [[2 * n, 2 * n + 1] for n in range(8)]
    expected[2:4] = [[-1, 5], [-1, -1]]
    assert outputs(feeder) == expected
    assert source.faults == [{0: "broken"}, {0: "broken", 1: "broken"}]
    assert feeder.close()


def test_an_error_of_the_source_is_raised_at_the_consumer():
    feeder = feeder_of(Numbers(unreadable=3))
    with pytest.raises(OSError, match="no such disk"):
        outputs(feeder)
    assert feeder.close()


def test_closing_waits_for_the_gpu_and_gives_its_memory_back(monkeypatch):
    calls = []

    class Busy:
        def query(self) -> bool:
            return False  # the GPU lags behind

    class Outputs:
        def __del__(self) -> None:
            calls.append("freed")

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(str(device)))
    resources = LoaderResources(Numbers(), Activity(), device=torch.device("cuda", 1), prefetch=2)
    for _ in range(3):
        resources.outputs_in_use.add(Busy(), Outputs())
    assert not calls
    resources.close()
    assert calls == ["cuda:1", "freed", "freed", "freed"]


def test_an_error_while_the_graph_is_emptied_is_not_raised_in_the_thread():
    """The consumer has the first one; pytest would report an exception of a thread."""

    class Lost(Echo):
        def collect(self) -> list[int]:
            raise LoaderError("the GPU failed")

    source = Numbers()
    epoch = EpochRequests(source.open(0), threading.Event())
    feeder = Feeder(source, epoch, Lost(), Activity(), prefetch=2)
    feeder.start()
    with pytest.raises(LoaderError, match="the GPU failed"):
        outputs(feeder)
    assert feeder.close()


def test_a_closed_feeder_raises():
    feeder = feeder_of(Numbers())
    assert feeder.close()
    with pytest.raises(LoaderError, match="epoch has ended"):
        feeder.get(60, 60)


class Hanging(Numbers):
    """The first batch is not read before `answer` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()

    def load(self, request: int) -> LoadedBatch:
        self.answer.wait(60)
        return super().load(request)


@pytest.mark.parametrize("signalled", [False, True])
def test_a_hang_ends_at_its_own_limit_not_at_that_of_the_report(monkeypatch, signalled):
    monkeypatch.setattr(feeder_module, "END_PATIENCE", 0.3)
    source = Hanging()
    feeder = feeder_of(source)
    reason = "after the signal to end" if signalled else r"after loader\.hang 0\.5 s"
    with alarm(), pytest.raises(HangError, match=reason):
        feeder.get(600, 0 if signalled else 0.5, lambda: signalled)
    source.answer.set()
    assert feeder.close()


def test_a_batch_that_is_ready_is_given_out_after_a_signal(monkeypatch):
    monkeypatch.setattr(feeder_module, "END_PATIENCE", 0.0)
    feeder = feeder_of(Numbers())
    result = []
    while (batch := feeder.get(60, 60, lambda: True)) is not None:
        result.append(batch.outputs)
    assert len(result) == 8
    assert feeder.close()
