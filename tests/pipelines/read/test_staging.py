"""Blocked reading, staging and remote sets."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pipelines import (
    LoaderConfig,
    LoaderError,
    OrderConfig,
    Rank,
)
from pipelines.read import staging as st
from pipelines.read.filesystems import filesystem, is_network
from pipelines.read.frames import FrameReader, merged
from pipelines.train_loader import batches_ahead
from shards import Split, open_split
from tests.pipelines.loaders import batches, same, train


@pytest.fixture
def copy(split: Split, tmp_path: Path) -> Split:
    """A copy of the set that may be taken away."""
    shutil.copytree(split.root, tmp_path / "far" / "set")
    return open_split(tmp_path / "far" / "set", "train")


def test_merging_of_reads():
    offsets, sizes = np.array([0, 10, 30, 31, 90]), np.array([10, 5, 1, 9, 10])
    assert list(merged(offsets, sizes, 0)) == [(0, 1), (2, 3), (4, 4)]
    assert list(merged(offsets, sizes, 15)) == [(0, 3), (4, 4)]
    assert list(merged(offsets, sizes, 100)) == [(0, 4)]


def test_one_read_per_snippet(split):
    long = int(np.argmax(split.samples["num_frames"]))
    frames = np.array([0, 8, 16, 24, 100, 108, 116, 124])
    counts = {}
    for gap in (0, 16 << 10, 1 << 30):
        source = FrameReader(split, st_activity(), threads=1, gap=gap)
        found = source.fetch([long], [frames])[0]
        counts[gap] = source.meter.reads
        assert len(found) == 8
        source.close()
    assert list(counts.values()) == [8, 2, 1]


def st_activity():
    from pipelines.watchdog import Activity

    return Activity()


@pytest.mark.parametrize("ahead_mb", [1, 2048])
def test_blocked_reading_gives_the_batches_of_the_plan(split, ahead_mb):
    order = OrderConfig("blocked", block=3, window=2)
    config = LoaderConfig(threads=1, order=order, ahead_mb=ahead_mb)
    ahead = train(split, config=config)
    plain = train(split, config=config)
    plain.source.ahead = 0  # the same order, read batch by batch
    whole = batches(ahead)
    assert same(whole, batches(plain))
    assert same(whole[2:], batches(train(split, config=config), start=8))


def test_blocked_reading_goes_through_each_tar_once(split, monkeypatch):
    reads = []
    real = FrameReader.pread

    def noting(self, path, offset, size):
        reads.append((str(path), offset, size))
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", noting)
    config = LoaderConfig(threads=1, read_threads=1, order=OrderConfig("blocked", block=0))
    loader = train(split, config=config)
    assert batches_ahead(loader.plans, config) >= len(loader)
    batches(loader)
    assert len(reads) == 24  # one for each video
    assert reads == sorted(reads)


def test_broken_videos_in_blocked_order(copy):
    copy.tars[0].unlink()
    config = LoaderConfig(threads=1, order=OrderConfig("blocked", block=2))
    loader = train(copy, config=config)
    replaced = [entry for batch in loader.epoch(0) for entry in batch.replaced]
    lost = set(np.flatnonzero(copy.samples["tar"] == 0).tolist())
    assert {entry[0] for entry in replaced} == lost & set(loader.order(0)[:24].tolist())
    loader.close()


def test_an_epoch_of_blocked_order_left_early_ends_its_threads(split):
    config = LoaderConfig(threads=1, order=OrderConfig("blocked"), ahead_mb=1)
    loader = train(split, config=config)
    next(loader.epoch(0))
    loader.close()
    for thread in threading.enumerate():
        if thread.name == "loader-ahead":
            thread.join(5)
            assert not thread.is_alive()


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /data rw,relatime shared:1 - nfs4 server:/data rw
31 30 8:2 / /data/local rw - xfs /dev/sdb rw
32 22 0:41 / /with\\040space rw - lustre a rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/data/k400", "nfs4"),
        ("/data/local/k400", "xfs"),
        ("/database", "ext4"),
        ("/with space/a", "lustre"),
    ],
)
def test_the_file_system_of_a_path(tmp_path, path, kind):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert filesystem(Path(path), mounts) == kind


def test_this_machine_can_tell_its_file_systems(tmp_path):
    assert filesystem(tmp_path)
    assert filesystem(Path("/proc/self")) == "proc"
    assert not is_network(Path("/proc"))


def test_random_reads_over_a_network_are_warned_of(split, capfd, monkeypatch):
    monkeypatch.setattr(st, "is_network", lambda path: True)
    train(split).close()
    assert "--loader.order.kind blocked" in capfd.readouterr().err
    train(split, config=LoaderConfig(order=OrderConfig("blocked"))).close()
    assert "network" not in capfd.readouterr().err


def staged_config(tmp_path: Path, **changes: object) -> LoaderConfig:
    settings = {"threads": 1, "stage": "all", "scratch": tmp_path / "scratch", **changes}
    return LoaderConfig(**settings)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_margin(monkeypatch):
    """Test machines may have little room."""
    monkeypatch.setattr(st, "MARGIN", 1 << 20)


def test_staged_tars_are_read_instead_of_the_originals(split, copy, tmp_path):
    expected = batches(train(split))
    loader = train(copy, config=staged_config(tmp_path))
    shutil.rmtree(copy.tars[0].parent)  # the network goes away
    assert same(batches(loader), expected)


def test_staging_is_done_once_and_goes_on_where_it_stopped(copy, tmp_path, capfd):
    config = staged_config(tmp_path)
    first = st.stage(copy, config)
    assert "staging 6 tars" in capfd.readouterr().err
    st.stage(copy, config)
    assert "staging" not in capfd.readouterr().err
    first.tars[2].unlink()
    first.tars[3].write_bytes(b"half")
    st.stage(copy, config)
    assert "staging 2 tars" in capfd.readouterr().err
    assert [p.read_bytes() for p in first.tars] == [p.read_bytes() for p in copy.tars]


def test_only_the_tars_of_the_lanes(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    config = staged_config(tmp_path, order=OrderConfig("local"), stage="lanes")
    loader = train(copy, config=config, rank=Rank(1, 4), batch_size=1)
    staged = [path for path in loader.split.tars if path.is_relative_to(tmp_path / "scratch")]
    assert 0 < len(staged) < 6
    used = {loader.split.tar_path(i) for epoch in range(3) for i in loader.order(epoch)[1::4]}
    assert used == set(staged)
    loader.close()
    with pytest.raises(LoaderError, match=r"5 ranks do not divide loader\.order\.shares 192"):
        train(copy, config=config, rank=Rank(world=5), batch_size=1)


def test_no_room_on_the_scratch_disk(copy, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(st, "MARGIN", 1 << 60)
    assert st.stage(copy, staged_config(tmp_path)).tars == copy.tars
    said = capfd.readouterr().err
    assert "not staged" in said
    assert "GB free" in said


def test_a_damaged_tar_is_not_staged(copy, tmp_path, capfd):
    data = bytearray(copy.tars[1].read_bytes())
    data[5000] ^= 255
    copy.tars[1].write_bytes(data)
    assert st.stage(copy, staged_config(tmp_path)).tars == copy.tars
    assert "SHA-256" in capfd.readouterr().err


def test_staging_is_the_default_under_slurm(copy, tmp_path, monkeypatch):
    auto = LoaderConfig()
    assert st.stage(copy, auto) is copy
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    assert st.stage(copy, auto) is copy
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    assert st.stage(copy, auto).tars[0].is_relative_to(tmp_path / "node")
    assert st.stage(copy, LoaderConfig(stage="off")) is copy


def test_settings_that_cannot_work(copy):
    with pytest.raises(LoaderError, match=r"--loader\.scratch"):
        st.stage(copy, LoaderConfig(stage="all"))
    with pytest.raises(LoaderError, match="kind local"):
        LoaderConfig(stage="lanes")
