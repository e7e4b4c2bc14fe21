"""The order of batches: any number of processes, resuming, repeated views."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from pipelines import (
    AugmentConfig,
    LoaderConfig,
    LoaderError,
    OrderConfig,
    Rank,
    TrainLoader,
)
from pipelines.read.gops import ContainerReader
from pipelines.watchdog import Activity
from tests.pipelines.loaders import MEDIUM, train

make = partial(train, augment=MEDIUM)


def everything(loader: TrainLoader, epoch: int = 0, start: int = 0) -> list:
    return [(batch.ids.copy(), batch.clips.clone()) for batch in loader.epoch(epoch, start)]


def test_two_ranks_load_the_batches_of_one(split):
    whole = make(split, batch_size=4)
    halves = [make(split, batch_size=2, rank=Rank(rank, 2)) for rank in range(2)]
    parts = [everything(half) for half in halves]
    for step, (ids, clips) in enumerate(everything(whole)):
        for rank in range(2):
            assert (parts[rank][step][0] == ids[rank::2]).all()
            assert (parts[rank][step][1] == clips[rank::2]).all()
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for loader in (whole, *halves):
        loader.close()


@pytest.mark.parametrize("kind", ["random", "blocked", "local"])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_order_is_the_same_for_any_world(split, kind, world):
    config = LoaderConfig(threads=1, order=OrderConfig(kind, block=2, window=3))
    loaders = [
        make(split, config=config, batch_size=12 // world, rank=Rank(rank, world))
        for rank in range(world)
    ]
    for step in range(2):
        plans = [next(loader.plans.batches(1, step)).ids for loader in loaders]
        together = np.stack(plans, axis=1).reshape(-1)
        assert (together == loaders[0].order(1)[step * 12 : step * 12 + 12]).all()
    for loader in loaders:
        loader.close()


def test_threads_do_not_change_the_batches(split):
    one = make(split, config=LoaderConfig(threads=1, read_threads=1, prefetch=1))
    many = make(split, config=LoaderConfig(threads=3, read_threads=5, prefetch=4))
    for (ids, clips), (other_ids, other) in zip(everything(one), everything(many), strict=True):
        assert (ids == other_ids).all()
        assert (clips == other).all()
    one.close()
    many.close()


@pytest.mark.parametrize("kind", ["random", "blocked", "local"])
def test_resume_at_any_sample(split, kind):
    config = LoaderConfig(threads=1, order=OrderConfig(kind, block=2, window=3))
    loader = make(split, config=config)
    whole = everything(loader, epoch=2)
    loader.close()
    for done in range(len(whole) + 1):
        loader = make(split, config=config)
        rest = everything(loader, epoch=2, start=4 * done)
        assert [ids.tolist() for ids, _ in rest] == [ids.tolist() for ids, _ in whole[done:]]
        assert all((a[1] == b[1]).all() for a, b in zip(rest, whole[done:], strict=True))
        assert loader.reader.meter.videos == 4 * len(rest)  # nothing is read again
        loader.close()


def test_the_number_of_ranks_may_change_within_an_epoch(split):
    ids: list[int] = []
    for world, steps, start in ((1, 2, 0), (4, 1, 8), (2, 1, 16), (1, 2, 20)):
        batch = {1: 4, 2: 2, 4: 2}[world]
        loaders = [make(split, batch_size=batch, rank=Rank(r, world)) for r in range(world)]
        for _, *batches in zip(range(steps), *[x.epoch(0, start) for x in loaders], strict=False):
            ids += np.stack([b.ids for b in batches], axis=1).reshape(-1).tolist()
        for loader in loaders:
            loader.close()
    assert ids == make(split).order(0)[: len(ids)].tolist()
    assert len(ids) == 24


def test_starts_that_do_not_divide_are_refused(split):
    loader = make(split, batch_size=4)
    with pytest.raises(LoaderError, match="multiple of 4"):
        loader.epoch(0, 6)
    with pytest.raises(LoaderError, match="cannot start at sample 400"):
        loader.epoch(0, 400)
    loader.close()
    with pytest.raises(LoaderError, match="use 6 ranks"):
        make(split, rank=Rank(world=7))


def test_the_tail_is_dropped(split):
    loader = make(split, batch_size=4)
    assert len(loader) == 6
    assert loader.samples_per_epoch() == 24
    assert len(list(loader.epoch(0))) == 6
    loader.close()


def test_a_batch_larger_than_the_split_is_refused(split):
    with pytest.raises(LoaderError, match="26 views an epoch, fewer than one step"):
        make(split, batch_size=14, rank=Rank(world=2))
    make(split, batch_size=13, rank=Rank(world=2)).close()


def test_repeated_views_come_from_one_read(split):
    loader = make(split, augment=AugmentConfig(size=48, short_sides=(64, 80), repeats=2))
    assert len(loader) == 13
    order = loader.order(0)
    wanted = 0  # bytes of the frames that the views show, those they share once
    for step, batch in enumerate(loader.epoch(0)):
        assert batch.ids.tolist() == np.repeat(order[2 * step : 2 * step + 2], 2).tolist()
        assert (batch.clips[0] != batch.clips[1]).any()
        plan = loader.planner.plan(0, batch.ids, np.tile([0, 1], 2))
        for row in (0, 2):
            frames = np.unique(plan.frames[row : row + 2])
            first = int(split.samples["first_frame"][batch.ids[row]])
            wanted += int(split.frames["size"][first + frames].sum())
    assert loader.reader.meter.videos == 26  # not 52
    assert loader.reader.meter.bytes == wanted
    loader.close()
    with pytest.raises(LoaderError, match=r"augment\.repeats"):
        make(split, batch_size=3, augment=AugmentConfig(repeats=2))


@pytest.mark.parametrize("codec", ["vp9", "h264"])
def test_repeated_views_of_a_container_come_from_one_read(split_of, codec):
    split = split_of(codec)
    reader = ContainerReader(split, Activity(), threads=1)
    twice = make(split, augment=AugmentConfig(size=48, short_sides=(64, 80), repeats=2))
    ids, frames = [], []
    for batch in twice.epoch(0):
        ids += batch.ids[::2].tolist()
        plan = twice.planner.plan(0, batch.ids, np.tile([0, 1], 2))
        frames += [plan.frames[row : row + 2].reshape(-1) for row in (0, 2)]
        for row in range(4):  # each view equals the view read alone
            single = reader.fetch([int(batch.ids[row])], [plan.frames[row]])[0]
            both = reader.fetch(batch.ids.tolist(), list(plan.frames))[row]
            for name in ("data", "picks", "gather"):
                assert np.array_equal(getattr(single, name), getattr(both, name))
    twice.close()
    counted = make(split, augment=AugmentConfig(size=48, short_sides=(64, 80), repeats=2))
    for _ in counted.epoch(0):
        pass
    union = sum(len(reader.fetch([i], [f])[0].data) for i, f in zip(ids, frames, strict=True))
    assert counted.reader.meter.bytes == union
    assert counted.reader.meter.videos == len(ids)
    counted.close()
    reader.close()
