"""Places of readers: kept of all processes, taken up where they fit, refused loudly where not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dsanet.engine.launch.distributed import World
from dsanet.engine.reader_state import dali_version, gather_places, open_epoch, own_place
from pipelines import LoaderError

VERSIONS = {"torch": "2", "nvidia-dali-cuda130": "2.4"}


class Pair(World):
    """The first of two processes; the other one's place is twice as long."""

    def gather_bytes(self, data: bytes) -> list[bytes]:
        return [data, data * 2]


def state(samples: int = 8, **changed: Any) -> dict[str, Any]:
    kept = gather_places(Pair(0, 2), b"\x00here\xff", 8)
    return {"samples": samples, "readers": kept, "versions": VERSIONS} | changed


def test_each_process_finds_its_own_place() -> None:
    said: list[str] = []
    places = [own_place(state(), World(rank, 2), "2.4", said.append) for rank in (0, 1)]
    assert places == [b"\x00here\xff", b"\x00here\xff" * 2]
    assert not any("WARNING" in line for line in said)


@pytest.mark.parametrize(
    ("kept", "world", "dali", "told"),
    [
        (state(), World(), "2.4", "kept by 2 processes, these are 1"),
        (state(), World(0, 2), "2.5", "kept by DALI 2.4, this is 2.5"),
        (state(samples=4), World(0, 2), "2.4", "does not say where it stood"),
        (state(readers=None), World(0, 2), "2.4", "does not say where it stood"),
        ({"samples": 8, "versions": VERSIONS}, World(0, 2), "2.4", "does not say where it stood"),
    ],
)
def test_a_place_that_does_not_fit_is_told(
    kept: dict[str, Any], world: World, dali: str, told: str
) -> None:
    said: list[str] = []
    assert own_place(kept, world, dali, said.append) is None
    [line] = said
    assert line.startswith("WARNING")
    assert told in line


def test_a_process_without_a_place_leaves_all_without() -> None:
    assert gather_places(Pair(0, 2), None, 8) is None


def test_the_version_of_dali_is_found_under_either_name() -> None:
    assert dali_version(VERSIONS) == dali_version({"nvidia-dali-cuda120": "2.4"}) == "2.4"
    assert dali_version({"torch": "2"}) is None


class Refusing:
    """A loader that takes no place, or no position at all."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def epoch(self, epoch: int, start: int = 0, state: bytes | None = None) -> Iterator[Any]:
        if state is not None:
            raise self.error
        return iter([(epoch, start)])


def test_a_place_that_dali_refuses_is_passed_by_loudly() -> None:
    said: list[str] = []
    loader: Any = Refusing(RuntimeError("Failed to deserialize\nmore"))
    assert list(open_epoch(loader, 1, 8, b"x", said.append)) == [(1, 8)]
    assert "Failed to deserialize" in said[0]
    loader = Refusing(LoaderError("no such start"))
    with pytest.raises(LoaderError):
        open_epoch(loader, 1, 8, b"x", said.append)


def test_bytes_of_one_process_are_gathered_as_they_are() -> None:
    data = np.arange(256, dtype=np.uint8).tobytes()
    assert World().gather_bytes(data) == [data]
    assert World().gather_bytes(b"") == [b""]
