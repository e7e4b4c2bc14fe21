"""Broken videos: the job goes on without them, or stops cleanly with a list."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines import (
    EvalLoader,
    LoaderConfig,
    LoaderError,
    Rank,
    SamplingConfig,
)
from pipelines.plan.planner import replacement
from shards import Split, open_split
from tests.pipelines.damage import (
    bad_huffman_table,
    bad_quantiser_table,
    bad_scan,
    four_components,
    other_size,
    overwrite,
    without_end_of_header,
    zeroed,
)
from tests.pipelines.loaders import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(split: Split, tmp_path: Path) -> Path:
    """A copy of the set that may be damaged; its split is called train."""
    shutil.copytree(split.root, tmp_path / "set")
    return tmp_path / "set"


def longest(split: Split) -> int:
    return int(np.argmax(split.samples["num_frames"]))


def first_in_order(split: Split) -> int:
    loader = train(split)
    loader.close()
    return int(loader.order(0)[0])


def check_replaced(
    clean: Split,
    damaged: Split,
    bad: set[int],
    tmp_path: Path,
    config: LoaderConfig = LoaderConfig(threads=1),  # noqa: B008  (frozen)
) -> list[str]:
    """An epoch of the damaged set differs from the clean one in the broken videos alone."""
    listed = tmp_path / "run" / "quarantine.jsonl"
    intact = train(clean, config=config)
    loader = train(damaged, config=config, quarantine=listed)
    reasons = {}
    for before, after in zip(intact.epoch(0), loader.epoch(0), strict=True):
        replaced = {video: (other, reason) for video, other, reason in after.replaced}
        for row, video in enumerate(before.ids.tolist()):
            if video not in bad:
                assert after.ids[row] == video
                assert (after.clips[row] == before.clips[row]).all()
                continue
            other, reason = replaced[video]
            reasons[video] = reason
            chain = [replacement(video, attempt, len(damaged)) for attempt in range(20)]
            assert other == next(sample for sample in chain if sample not in bad)
            assert after.ids[row] == other
            assert after.labels[row] == damaged.samples["label"][other]
            assert after.clips[row].any()
            assert damaged.key(video) in reason
            assert str(damaged.tar_path(video)) in reason
    expected = bad & set(intact.order(0)[:24].tolist())
    for one in (intact, loader):
        one.close()
    assert set(reasons) == expected
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {line["id"] for line in lines} >= expected
    assert len({line["id"] for line in lines}) == len(lines)
    return list(reasons.values())


def test_corrupt_bytes_are_caught_by_their_checksum(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    bad = {longest(split), 3}
    for sample in bad:
        overwrite(damaged, sample, zeroed)
    reasons = check_replaced(split, open_split(copy, "train"), bad, tmp_path)
    assert all("CRC32" in reason for reason in reasons)


@pytest.mark.parametrize("damage", [zeroed, other_size, four_components, without_end_of_header])
def test_headers_that_would_crash_dali_are_rejected_by_the_reader(split, copy, tmp_path, damage):
    damaged = open_split(copy, "train")
    bad = {longest(split), 3, 4}
    for sample in bad:
        overwrite(damaged, sample, damage, fix_crc=True)
    reasons = check_replaced(split, open_split(copy, "train"), bad, tmp_path)
    assert not any("CRC32" in reason for reason in reasons)


@pytest.mark.parametrize("damage", [bad_huffman_table, bad_quantiser_table, bad_scan])
@pytest.mark.parametrize("roi", [True, False])
def test_bisection_names_the_videos_that_dali_refuses(split, copy, tmp_path, damage, roi):
    damaged = open_split(copy, "train")
    bad = {longest(split), 3, 4}
    for sample in bad:
        overwrite(damaged, sample, damage, fix_crc=True)
    config = LoaderConfig(threads=2, roi_decode=roi)
    reasons = check_replaced(split, open_split(copy, "train"), bad, tmp_path, config)
    assert not any("CRC32" in reason for reason in reasons)


def test_a_shortened_tar(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    path = damaged.tar_path(len(damaged) - 1)
    bad = set(np.flatnonzero(damaged.samples["tar"] == damaged.samples["tar"][-1]).tolist())
    first = int(damaged.samples["offset"][min(bad)])
    os.truncate(path, first + 100)
    reasons = check_replaced(split, damaged, bad, tmp_path)
    assert all("short read" in reason for reason in reasons)


def test_a_vanished_tar(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    damaged.tar_path(0).unlink()
    bad = set(np.flatnonzero(damaged.samples["tar"] == 0).tolist())
    reasons = check_replaced(split, damaged, bad, tmp_path)
    assert all("No such file" in reason for reason in reasons)


def test_a_wrong_table(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    damaged.frames = split.frames.copy()  # changed once the set is open, as a faulty disk does
    row = split.samples[longest(split)]
    rows = slice(row["first_frame"], row["first_frame"] + row["num_frames"])
    damaged.frames["size"][rows] += 1 << 24
    reasons = check_replaced(split, damaged, {longest(split)}, tmp_path)
    assert all("points outside" in reason for reason in reasons)


def test_rows_that_the_frame_table_lacks(split, copy, tmp_path):
    """An error of the videos, not a traceback."""
    damaged = open_split(copy, "train")
    damaged.samples = split.samples.copy()
    damaged.samples["first_frame"][longest(split)] = len(split.frames) - 3
    reasons = check_replaced(split, damaged, {longest(split)}, tmp_path)
    assert all("lacks rows" in reason for reason in reasons)


def test_a_tar_that_is_replaced_while_it_is_open(split, copy, tmp_path):
    """An open file is read on; a later loader finds the change by its checksums."""
    damaged = open_split(copy, "train")
    one, other = train(split), train(damaged)
    next(other.epoch(0))
    path = damaged.tars[0]
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(np.random.default_rng(0).bytes(size))
    for before, after in zip(one.epoch(0), other.epoch(0), strict=True):
        replaced = [video for video, _, _ in after.replaced]
        for row, video in enumerate(before.ids.tolist()):
            assert video in replaced or (after.clips[row] == before.clips[row]).all()
    for loader in (one, other):
        loader.close()
    bad = set(np.flatnonzero(damaged.samples["tar"] == 0).tolist())
    reasons = check_replaced(split, damaged, bad, tmp_path)
    assert all("CRC32" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("damage", "fix_crc"), [(zeroed, False), (zeroed, True), (bad_huffman_table, True)]
)
def test_evaluation_reports_and_never_replaces(split, copy, damage, fix_crc):
    damaged = open_split(copy, "train")
    for sample in (0, 1, 2, 17):  # the whole first batch and one of another
        overwrite(damaged, sample, damage, fix_crc=fix_crc)
    loader = EvalLoader(
        open_split(copy, "train"), SamplingConfig(), LoaderConfig(threads=1), batch_size=3,
        crop_size=32, resize_short=32,
    )  # fmt: skip
    ids, valid = [], []
    for batch in loader:
        ids += batch.ids.tolist()
        valid += batch.valid.tolist()
        assert not batch.clips[~batch.valid].any()
    assert ids == [*range(26), -1]
    assert [i for i, good in zip(ids, valid, strict=True) if not good] == [0, 1, 2, 17, -1]
    assert [video for video, _ in loader.missing] == [0, 1, 2, 17]
    assert all(damaged.key(video) in reason for video, reason in loader.missing)
    loader.close()


def test_too_many_broken_videos_stop_the_job_with_a_list(copy, tmp_path):
    damaged = open_split(copy, "train")
    for sample in range(len(damaged)):
        overwrite(damaged, sample, zeroed)
    listed = tmp_path / "quarantine.jsonl"
    loader = train(open_split(copy, "train"), quarantine=listed)
    with pytest.raises(LoaderError, match="9 bad videos exceed the limit of 8") as caught:
        list(loader.epoch(0))
    assert "CRC32" in str(caught.value)
    assert str(listed) in str(caught.value)
    assert len(listed.read_text().splitlines()) == 9
    loader.close()


def test_a_replacement_depends_on_the_broken_id_alone(split, copy):
    """Not on the quarantine, which a run that resumes elsewhere does not know."""
    damaged = open_split(copy, "train")
    video = first_in_order(split)
    overwrite(damaged, video, zeroed)
    loader = train(open_split(copy, "train"))
    chosen = replacement(video, 0, len(split))
    loader.quarantine.add(chosen, "a transient error")
    replaced = [entry for batch in loader.epoch(0) for entry in batch.replaced]
    assert [(old, new) for old, new, _ in replaced] == [(video, chosen)]
    loader.close()


def test_a_replacement_that_dali_refuses_is_replaced_by_the_next(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    video = first_in_order(split)
    bad = {video, replacement(video, 0, len(split))}
    for sample in bad:
        overwrite(damaged, sample, bad_huffman_table, fix_crc=True)
    check_replaced(split, open_split(copy, "train"), bad, tmp_path)


def test_the_limit_of_a_rank_is_that_of_its_part_of_the_split(split):
    limits = []
    for world in (1, 2):
        config = LoaderConfig(threads=1, bad_share=1.0)
        loader = train(split, batch_size=1, rank=Rank(world=world), config=config)
        limits.append(loader.quarantine.limit)
        loader.close()
    assert limits == [26, 13]
