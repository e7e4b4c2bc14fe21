"""Keys are clean and unique, and a key's tar follows from the list alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards import ShardError, ShardSettings, ShardUsageError, Source
from shards.build.plan import (
    check_sources,
    check_split,
    fingerprint,
    parse_task,
    plan_tars,
    tar_samples,
    unique_keys,
)
from shards.format.index import MAX_KEY


def sources(count: int) -> list[Source]:
    return [Source(Path(f"{i}.mp4"), 0, f"key{i}", name=f"{i}.mp4") for i in range(count)]


def test_keys_have_no_dots_and_no_doubles():
    names = ["a b/c.mp4", "a_b/c.mp4", "x.y.z.webm", "é.mp4", "ü.mp4", "k" * 200 + ".mp4", "ok.mkv"]
    keys = unique_keys(names)
    assert len(set(keys)) == len(names)
    assert all("." not in key and len(key) <= MAX_KEY for key in keys)
    assert keys[-1] == "ok"
    check_sources([Source(Path(n), 0, k) for n, k in zip(names, keys, strict=True)], ["one"])


def test_a_keys_tar_does_not_depend_on_the_order_of_the_list():
    settings = ShardSettings(tar_samples=7)
    there = plan_tars(sources(100), "s", settings)
    back = plan_tars(sources(100)[::-1], "s", settings)
    assert there == back
    assert sorted(s.key for plan in there for s in plan.sources) == sorted(
        s.key for s in sources(100)
    )


def test_samples_are_shuffled_and_the_seed_decides():
    def order(seed: int) -> list[str]:
        settings = ShardSettings(seed=seed)
        return [s.key for plan in plan_tars(sources(100), "s", settings) for s in plan.sources]

    assert order(0) != [s.key for s in sources(100)]
    assert order(0) != order(1)
    assert order(0) == order(0)


def test_long_lists_have_full_tars_and_short_ones_work_for_all():
    assert tar_samples(240_000, ShardSettings()) == 64
    assert tar_samples(100, ShardSettings()) == 8
    assert tar_samples(100, ShardSettings(tar_samples=50)) == 50


def test_the_fingerprint_knows_settings_labels_and_classes_but_not_places():
    base = fingerprint(sources(3), ShardSettings(), ["one"])
    moved = [Source(Path("/elsewhere") / s.path, 0, s.key, name=s.name) for s in sources(3)]
    assert fingerprint(moved, ShardSettings(), ["one"]) == base
    assert fingerprint(sources(3), ShardSettings(workers=7), ["one"]) == base
    assert fingerprint(sources(3), ShardSettings(quality=3), ["one"]) != base
    assert fingerprint(sources(3), ShardSettings(), ["two"]) != base
    assert fingerprint(sources(2), ShardSettings(), ["one"]) != base


@pytest.mark.parametrize("text", ["8/8", "1", "a/b", "-1/4", "0/0"])
def test_a_wrong_task_is_wrong_usage(text):
    with pytest.raises(ShardUsageError, match="task must be I/N"):
        parse_task(text)


def test_a_task_counts_from_zero():
    assert parse_task("7/8") == (7, 8)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "list is empty"),
        ([Source(Path("a"), 0, "a.b")], "key 'a.b'"),
        ([Source(Path("a"), 0, "a"), Source(Path("b"), 0, "a")], "twice"),
        ([Source(Path("a"), 5, "a")], "label 5"),
    ],
)
def test_a_bad_list_is_refused(bad, message):
    with pytest.raises(ShardError, match=message):
        check_sources(bad, ["one"])


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b"])
def test_a_split_is_a_plain_name(name):
    with pytest.raises(ShardUsageError, match="split must be"):
        check_split(name)
