"""Reader states: gathered from all processes, used again where they fit, else a warning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dsanet.engine import reader_state
from dsanet.engine.environment import dali_version
from dsanet.engine.launch.distributed import World
from dsanet.engine.reader_state import gather_states, open_epoch, own_state
from pipelines import LoaderError

VERSIONS = {"torch": "2", "nvidia-dali-cuda130": "2.4"}
NO_STATE = "the checkpoint has no state of it"


class TwoProcesses(World):
    """The first of two processes; the state of the other one is twice as long."""

    def gather_bytes(self, data: bytes) -> list[bytes]:
        return [data, data * 2]


def content(samples: int = 8, **changed: Any) -> Any:
    """The part of a checkpoint that concerns readers."""
    readers = gather_states(TwoProcesses(0, 2), b"\x00here\xff", 8)
    return {"samples": samples, "readers": readers, "versions": VERSIONS} | changed


@pytest.fixture(autouse=True)
def _dali_2_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_state, "versions", lambda: VERSIONS)


def test_each_process_gets_its_own_state() -> None:
    lines: list[str] = []
    states = [own_state(content(), World(rank, 2), lines.append) for rank in (0, 1)]
    assert states == [b"\x00here\xff", b"\x00here\xff" * 2]
    assert not any("WARNING" in line for line in lines)


@pytest.mark.parametrize(
    ("saved", "world", "reason"),
    [
        (content(), World(), "saved by 2 processes, now there are 1"),
        (content(versions={"nvidia-dali-cuda130": "2.3"}), World(0, 2), "with DALI 2.3"),
        (content(samples=4), World(0, 2), NO_STATE),
        (content(readers=None), World(0, 2), NO_STATE),
    ],
)
def test_a_state_that_does_not_fit_is_not_used(saved: Any, world: World, reason: str) -> None:
    lines: list[str] = []
    assert own_state(saved, world, lines.append) is None
    [line] = lines
    assert line.startswith("WARNING")
    assert reason in line


def test_no_states_are_saved_if_one_process_has_none() -> None:
    assert gather_states(TwoProcesses(0, 2), None, 8) is None


def test_dali_version_is_found_for_cuda_12_and_13() -> None:
    assert dali_version(VERSIONS) == dali_version({"nvidia-dali-cuda120": "2.4"}) == "2.4"
    assert dali_version({"torch": "2"}) is None


class Refusing:
    """A loader that refuses every state."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def epoch(self, epoch: int, start: int = 0, state: bytes | None = None) -> Iterator[Any]:
        if state is not None:
            raise self.error
        return iter([(epoch, start)])


def test_a_state_that_dali_refuses_is_ignored_with_a_warning() -> None:
    lines: list[str] = []
    loader: Any = Refusing(RuntimeError("Failed to deserialize\nmore"))
    assert list(open_epoch(loader, 1, 8, b"x", lines.append)) == [(1, 8)]
    assert lines[0].startswith("WARNING")
    assert "Failed to deserialize" in lines[0]


def test_an_error_of_the_loader_is_passed_on() -> None:
    loader: Any = Refusing(LoaderError("no such start"))
    with pytest.raises(LoaderError):
        open_epoch(loader, 1, 8, b"x", lambda line: None)


def test_bytes_of_one_process_are_gathered_unchanged() -> None:
    data = np.arange(256, dtype=np.uint8).tobytes()
    assert World().gather_bytes(data) == [data]
    assert World().gather_bytes(b"") == [b""]
