"""How the global batch is split, for every number of processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsanet.engine import UsageError
from dsanet.engine.batching import describe, every_nth, interleaved, plan_steps
from dsanet.engine.command_line import recipes
from dsanet.engine.config import BatchConfig, TrainConfig

CONFIG = TrainConfig(data="d", model="dsa_i3d_r50", out="o")


@pytest.mark.parametrize(
    ("processes", "micro", "accumulation"), [(1, 12, 8), (2, 12, 4), (8, 12, 1), (16, 6, 1)]
)
def test_the_global_batch_does_not_depend_on_the_number_of_processes(
    processes: int, micro: int, accumulation: int
) -> None:
    layout = plan_steps(CONFIG, processes, 240_000)
    assert (layout.micro, layout.accumulation) == (micro, accumulation)
    assert layout.steps_per_epoch == 2500
    assert layout.total == 24_000_000


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"batch.videos must be a multiple of the 7 processes .*, got 96"
    ):
        plan_steps(CONFIG, 7, 240_000)
    with pytest.raises(UsageError, match="95 videos, fewer than one batch"):
        plan_steps(CONFIG, 1, 95)


def test_repeated_views_stay_together() -> None:
    config = replace(CONFIG, augment=replace(CONFIG.augment, repeats=4))
    layout = plan_steps(config, 2, 100)
    assert layout.micro % 4 == 0
    assert layout.steps_per_epoch == 400 // 96


@pytest.mark.parametrize("repeats", [1, 2])
def test_groups_and_their_order_do_not_depend_on_the_number_of_processes(repeats: int) -> None:
    """A step of 8 videos falls into the same 4 groups, each video with all its views."""
    views = np.repeat(np.arange(8), repeats)
    expected = [[v for v in range(g, 8, 4) for _ in range(repeats)] for g in range(4)]
    for processes, parts in ((1, 4), (2, 2), (4, 1)):
        # As the loader distributes them: video p of the step goes to process p % processes.
        ranks = [np.repeat(np.arange(8)[r::processes], repeats) for r in range(processes)]
        groups = {
            rank + part * processes: every_nth(torch.from_numpy(ids), part, parts, repeats).tolist()
            for rank, ids in enumerate(ranks)
            for part in range(parts)
        }
        assert [groups[g] for g in range(4)] == expected
        assert interleaved(ranks, repeats) == views.tolist()


def test_few_snippets_for_batchnorm_give_a_warning() -> None:
    config = replace(CONFIG, batch=BatchConfig(videos=8, per_gpu=2))
    assert any("noisy" in line for line in describe(config, plan_steps(config, 1, 100)))
    assert not any("noisy" in line for line in describe(CONFIG, plan_steps(CONFIG, 8, 1000)))


def test_there_are_recipes_for_the_papers_data_sets() -> None:
    expected = {"demo", "kinetics400", "mini-kinetics200", "somethingv1", "activitynet"}
    assert expected <= set(recipes())
