"""Order and draws depend on (seed, epoch, id) alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import AugmentConfig, LoaderUsageError, OrderConfig, SamplingConfig
from pipelines.plan.planner import (
    LANES,
    TrainPlanner,
    check_world,
    epoch_order,
    flipped_labels,
    lane_shares,
    replacement,
    uniforms,
)

KINDS = ("random", "blocked", "local")
CLASSES = ("Pushing something from left to right", "Pushing something from right to left",
           "Turning left", "Standing")  # fmt: skip


def tars(count: int, per_tar: int = 25) -> np.ndarray:
    return np.arange(count) // per_tar


def planner(augment: AugmentConfig, seed: int = 3, count: int = 50) -> TrainPlanner:
    dtype = [("num_frames", "i4"), ("height", "i4"), ("width", "i4"), ("label", "i4")]
    samples = np.array([(30 + 7 * i, 256, 340, i % 4) for i in range(count)], dtype)
    split = SimpleNamespace(samples=samples, classes=CLASSES)
    return TrainPlanner(split, SamplingConfig(), augment, seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 959, 960, 961, 5000])
def test_an_epoch_holds_every_video_once(kind, count):
    order = epoch_order(tars(count), 1, 2, OrderConfig(kind))
    assert np.sort(order).tolist() == list(range(count))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_changes_with_seed_and_epoch_only(kind):
    config = OrderConfig(kind)
    first = epoch_order(tars(3000), 1, 2, config)
    assert (first == epoch_order(tars(3000), 1, 2, config)).all()
    assert (first != epoch_order(tars(3000), 2, 2, config)).any()
    assert (first != epoch_order(tars(3000), 1, 3, config)).any()


def test_the_order_of_this_version_is_the_order_of_every_version():
    # Philox's raw stream is fixed for ever; a changed order would break resumed runs.
    order = epoch_order(tars(10), 0, 0, OrderConfig())
    assert order.tolist() == [8, 7, 4, 2, 6, 5, 9, 0, 1, 3]


@pytest.mark.parametrize("shares", [64, 192, 960])
def test_ranks_keep_their_videos_in_local_order(shares):
    config = OrderConfig("local", shares=shares)
    orders = [epoch_order(tars(4000), 1, epoch, config) for epoch in range(3)]
    for world in (w for w in (2, 3, 8, 24, 64, 960) if shares % w == 0):
        for rank in range(world):
            videos = [frozenset(order[rank::world].tolist()) for order in orders]
            assert videos[0] == videos[1] == videos[2]
    assert (orders[0] == orders[1]).mean() < 0.5


@pytest.mark.parametrize("per_tar", [25, 100, 250])
def test_a_rank_needs_few_tars_in_local_order(per_tar):
    tar = tars(96_000, per_tar)
    order = epoch_order(tar, 1, 0, OrderConfig("local"))
    for world in (1, 2, 3, 8, 24, 64):
        touched = [len(np.unique(tar[order[rank::world]])) for rank in range(world)]
        shares = 192 / world if world % 3 == 0 else 1  # shares of a rank that lie apart
        assert max(touched) <= tar[-1] / world + 2 * shares


def test_any_two_videos_meet_in_local_order():
    """A batch of as many videos as there are shares draws on the whole set; a smaller one always
    on the same part of it."""
    for batch, parts in ((192, 1), (96, 2), (64, 3)):
        config, meets = OrderConfig("local"), []
        batch_of = np.empty((2, 19_200), int)
        for epoch in range(2):
            order = epoch_order(tars(19_200), 1, epoch, config)
            batch_of[epoch, order] = np.arange(len(order)) // batch
        for number in range(100):
            members = batch_of[1, batch_of[0] == number]
            again = np.bincount(members)
            meets.append((again * (again - 1)).sum() / (batch * (batch - 1)))
        chance = (batch - 1) / (19_200 - 1)
        assert 0.8 * parts < np.mean(meets) / chance < 1.25 * parts


def test_shares_that_do_not_divide_the_lanes_are_refused():
    with pytest.raises(LoaderUsageError, match=r"loader\.order\.shares must divide 960.*, got 100"):
        OrderConfig("local", shares=100)


def test_blocked_order_reads_runs_one_after_another():
    config = OrderConfig("blocked", block=20, window=40)
    order = epoch_order(tars(96_000, 100), 1, 0, config)
    for lane in (0, 1, 500, 959):
        mine = order[lane::LANES]
        window = np.sort(mine[:40])
        runs = np.flatnonzero(np.diff(window) != 1).size + 1
        assert runs <= 4  # 40 videos in runs of 20, cut at the ends of the share and the window
        assert (np.diff(mine) != 1).mean() > 0.5  # yet shuffled inside


@pytest.mark.parametrize("lanes", [LANES, 192, 64])
def test_lane_shares_of_a_rank_are_neighbours(lanes):
    shares = lane_shares(lanes)
    assert np.sort(shares).tolist() == list(range(lanes))
    for world in (2, 4, 8, 16, 32, 64):
        for rank in range(world):
            mine = np.sort(shares[rank::world])
            assert mine[-1] - mine[0] == lanes // world - 1


def test_draws_depend_on_seed_epoch_id_and_repeat_alone():
    base = uniforms(1, 2, np.array([5, 9]), np.array([0, 0]), 40)
    assert ((base >= 0) & (base < 1)).all()
    again = uniforms(1, 2, np.array([9, 7, 5]), np.array([0, 0, 0]), 40)
    assert (again[0] == base[1]).all()
    assert (again[2] == base[0]).all()
    for other in (
        uniforms(2, 2, np.array([5]), np.array([0]), 40),
        uniforms(1, 3, np.array([5]), np.array([0]), 40),
        uniforms(1, 2, np.array([6]), np.array([0]), 40),
        uniforms(1, 2, np.array([5]), np.array([1]), 40),
    ):
        assert (other[0] != base[0]).all()
    longer = uniforms(1, 2, np.array([5]), np.array([0]), 60)
    assert (longer[0, :40] == base[0]).all()


def test_draws_are_uniform():
    x = uniforms(0, 0, np.arange(4000), np.zeros(4000, int), 8)
    counts = np.histogram(x, bins=10, range=(0, 1))[0]
    assert abs(counts - 3200).max() < 300
    assert abs(np.corrcoef(x.T) - np.eye(8)).max() < 0.08


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 6, 8, 15, 16, 60, 64, 96, 960])
def test_usual_worlds_are_accepted(world):
    check_world(world)


@pytest.mark.parametrize(("world", "near"), [(7, 6), (9, 8), (100, 96)])
def test_other_worlds_are_refused_with_a_remedy(world, near):
    with pytest.raises(LoaderUsageError, match=f"use {near} ranks"):
        check_world(world)


def test_one_draw_per_video():
    plan = planner(AugmentConfig()).plan(0, np.arange(50), np.zeros(50, int))
    assert plan.boxes.shape == (50, 1, 4)
    assert plan.frames.shape == (50, 16)
    assert plan.flips.shape == (50,)
    assert 10 < plan.flips.sum() < 40
    assert len(np.unique(plan.boxes, axis=0)) == 50


def test_a_plan_is_the_same_in_any_batch():
    maker = planner(AugmentConfig(brightness=0.4, hue=0.1))
    whole = maker.plan(4, np.arange(50), np.zeros(50, int))
    part = maker.plan(4, np.array([40, 3]), np.zeros(2, int))
    for name in ("frames", "boxes", "flips", "colours", "labels"):
        assert (getattr(part, name) == getattr(whole, name)[[40, 3]]).all()


def test_repeats_have_their_own_draws():
    maker = planner(AugmentConfig(repeats=2))
    plan = maker.plan(0, np.array([9, 9]), np.array([0, 1]))
    assert (plan.frames[0] != plan.frames[1]).any()
    assert (plan.boxes[0] != plan.boxes[1]).any()


def test_colours_stay_in_their_range():
    augment = AugmentConfig(brightness=0.4, contrast=0.2, saturation=0.1, hue=0.05)
    plan = planner(augment).plan(0, np.arange(50), np.zeros(50, int))
    low = [0.6, 0.8, 0.9, -18]
    high = [1.4, 1.2, 1.1, 18]
    assert (plan.colours >= np.float32(low)).all()
    assert (plan.colours <= np.float32(high)).all()
    assert plan.colours.std(axis=0).min() > 0.01
    plain = planner(AugmentConfig()).plan(0, np.arange(5), np.zeros(5, int))
    assert (plain.colours == [1, 1, 1, 0]).all()


def test_flipping_directional_classes():
    assert flipped_labels(CLASSES, "all").tolist() == [0, 1, 2, 3, 4]
    assert flipped_labels(CLASSES, "skip_directional").tolist() == [-1, -1, -1, 3, 4]
    # "Turning left" has no mirror image among the classes: it is not flipped.
    assert flipped_labels(CLASSES, "swap_directional").tolist() == [1, 0, -1, 3, 4]


def test_only_whole_words_have_a_direction():
    names = ("sitting upright", "a bright cleft", "leftover", "turn_left", "right-handed")
    assert flipped_labels(names, "skip_directional").tolist() == [0, 1, 2, -1, -1, 5]


def test_flipped_videos_carry_the_mirrored_label():
    swap = planner(AugmentConfig(flip=1.0, flip_classes="swap_directional"))
    plan = swap.plan(0, np.arange(4), np.zeros(4, int))
    assert plan.flips.tolist() == [True, True, False, True]
    assert plan.labels.tolist() == [1, 0, 2, 3]
    skip = planner(AugmentConfig(flip=1.0, flip_classes="skip_directional"))
    plan = skip.plan(0, np.arange(4), np.zeros(4, int))
    assert plan.flips.tolist() == [False, False, False, True]
    assert plan.labels.tolist() == [0, 1, 2, 3]


def test_a_replacement_depends_on_the_id_alone():
    replacements = [replacement(7, attempt, 100) for attempt in range(20)]
    assert replacements == [replacement(7, attempt, 100) for attempt in range(20)]
    assert len(set(replacements)) > 10
    assert replacements != [replacement(8, attempt, 100) for attempt in range(20)]
    assert all(0 <= other < 100 for other in replacements)


def test_wrong_orders_are_refused():
    with pytest.raises(
        LoaderUsageError,
        match=r"loader\.order\.kind must be one of random, blocked, local, got 'sorted'",
    ):
        OrderConfig("sorted")
    with pytest.raises(LoaderUsageError, match=r"loader\.order\.window must be at least 1, got 0"):
        OrderConfig(window=0)
