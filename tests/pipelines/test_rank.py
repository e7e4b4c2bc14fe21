"""Which process a loader belongs to."""

from __future__ import annotations

import pytest

from pipelines import LoaderUsageError, Rank


@pytest.mark.parametrize(
    ("rank", "world", "name"), [(4, 4, "rank"), (-1, 2, "rank"), (0, 0, "world")]
)
def test_a_rank_that_does_not_exist_is_refused(rank, world, name):
    with pytest.raises(LoaderUsageError, match=f"^{name} must"):
        Rank(rank, world)


def test_one_process_on_the_cpu_is_the_default():
    assert Rank() == Rank(rank=0, world=1, device="cpu")
