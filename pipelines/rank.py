"""Which of the processes of a run this is."""

from __future__ import annotations

from dataclasses import dataclass

from dsanet.errors import require
from pipelines.errors import LoaderUsageError


@dataclass(frozen=True)
class Rank:
    """One process of a run: number `rank` of `world`, whose batches go to `device`.

    Raises:
        LoaderUsageError: for a rank that does not exist.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        require(self.world >= 1, "world", "be at least 1", self.world, LoaderUsageError)
        allowed = 0 <= self.rank < self.world
        require(allowed, "rank", f"be in [0, {self.world})", self.rank, LoaderUsageError)


SINGLE_PROCESS = Rank()
