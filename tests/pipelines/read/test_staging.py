"""Staging of tars to node-local scratch."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from pipelines import (
    AugmentConfig,
    EvalLoader,
    LoaderConfig,
    LoaderError,
    OrderConfig,
    Rank,
    SamplingConfig,
)
from pipelines.errors import HangError
from pipelines.read import scratch
from pipelines.read import staging as st
from shards import Split, open_split
from tests.alarm import alarm
from tests.pipelines.loaders import batches, same, train


@pytest.fixture
def copy(split: Split, tmp_path: Path) -> Split:
    """A copy of the set that a test may change or delete."""
    shutil.copytree(split.root, tmp_path / "far" / "set")
    return open_split(tmp_path / "far" / "set", "train")


def test_random_reads_from_a_network_disk_give_a_warning(split, capfd, monkeypatch):
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
    """Test machines may have little free space."""
    monkeypatch.setattr(scratch, "MARGIN", 1 << 20)


def test_staged_tars_are_read_instead_of_the_originals(split, copy, tmp_path):
    expected = batches(train(split))
    loader = train(copy, config=staged_config(tmp_path))
    shutil.rmtree(copy.tars[0].parent)  # the network disk goes away
    assert same(batches(loader), expected)


def test_staging_is_done_once_and_continues_an_interrupted_copy(copy, tmp_path, capfd):
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


def test_several_tars_are_copied_at_once_and_the_speed_is_printed(
    copy, tmp_path, monkeypatch, capfd
):
    real, together = st.copy_verified, threading.Barrier(3, timeout=20)

    def copy_together(*arguments):
        together.wait()
        real(*arguments)

    monkeypatch.setattr(st, "copy_verified", copy_together)
    local = st.stage(copy, staged_config(tmp_path, read_threads=3))
    assert [p.read_bytes() for p in local.tars] == [p.read_bytes() for p in copy.tars]
    assert re.search(r"copied 6 tars \(.* GB\) in .* s: \d+ MB/s", capfd.readouterr().err)


def test_a_failing_copy_ends_the_others(copy, tmp_path, monkeypatch, capfd):
    copied = []

    def fail(source, target, entry, flag):
        copied.append(entry["name"])
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(st, "copy_verified", fail)
    assert st.stage(copy, staged_config(tmp_path, read_threads=2)).tars == copy.tars
    assert "not staged" in capfd.readouterr().err
    assert 1 <= len(copied) <= 2


@pytest.mark.parametrize("files", [1, 3])
def test_a_source_that_never_answers_ends_the_staging(copy, tmp_path, monkeypatch, files):
    answer, real = threading.Event(), st.open_regular

    def hanging(path):
        if path in copy.tars[:files]:
            answer.wait(60)
        return real(path)

    monkeypatch.setattr(st, "open_regular", hanging)
    config = staged_config(tmp_path, read_threads=3, hang=0.5)
    with alarm(), pytest.raises(HangError, match=r"no byte for 0\.5 s while copying tars from"):
        st.stage(copy, config)
    answer.set()  # too late: nothing more is written
    deadline = time.monotonic() + 10
    while any(t.name.startswith("loader-stage") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    left = [path.name for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
    assert not set(left) & {path.name for path in copy.tars[:files]}
    assert not [name for name in left if name.endswith(".part")]


@pytest.mark.parametrize("copying", [False, True])
def test_the_wait_for_a_process_that_copies_nothing_ends(tmp_path, copying):
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with scratch.locked(tmp_path):
            locked.set()
            for number in range(40):
                if copying:
                    (tmp_path / "x").write_text(str(number))
                elif release.wait(30):
                    return
                time.sleep(0.05)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    try:
        with alarm():
            if copying:  # it holds the lock for longer than the limit, but it copies
                with scratch.locked(tmp_path, 1.5):
                    assert (tmp_path / "x").read_text() == "39"
            else:
                with pytest.raises(HangError, match=f"process {os.getpid()} on .* its lock"):
                    scratch.locked(tmp_path, 0.5).__enter__()
    finally:
        release.set()
        holder.join(30)


def test_lanes_stages_only_the_tars_of_the_node(copy, tmp_path, monkeypatch):
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


def test_no_space_on_the_scratch_disk(copy, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(scratch, "MARGIN", 1 << 60)
    assert st.stage(copy, staged_config(tmp_path)).tars == copy.tars
    warning = capfd.readouterr().err
    assert "not staged" in warning
    assert "GB free" in warning


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


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {"batch_size": 0}, "batch_size must be at least 1"),
        ({}, {"batch_size": 27}, "use a smaller batch"),
        ({}, {"rank": Rank(world=7), "batch_size": 1}, "number of ranks must divide 960"),
        (
            {"stage": "lanes", "order": OrderConfig("local")},
            {"rank": Rank(world=5), "batch_size": 1},
            "5 ranks do not divide",
        ),
        ({"reader": "webdataset"}, {"augment": AugmentConfig(kind="multi_scale")}, "multi_scale"),
    ],
)
def test_wrong_settings_are_refused_before_tars_are_staged(
    copy, tmp_path, settings, changes, message
):
    with pytest.raises(LoaderError, match=message):
        train(copy, config=staged_config(tmp_path, **settings), **changes)
    assert not (tmp_path / "scratch").exists()


def test_an_evaluation_batch_is_checked_before_tars_are_staged(copy, tmp_path):
    with pytest.raises(LoaderError, match="batch_size must be at least 1"):
        EvalLoader(copy, SamplingConfig(), staged_config(tmp_path), batch_size=0)
    assert not (tmp_path / "scratch").exists()


def test_wrong_settings_are_refused(copy):
    with pytest.raises(LoaderError, match=r"^loader\.scratch must name a folder.*, got None"):
        st.stage(copy, LoaderConfig(stage="all"))
    with pytest.raises(LoaderError, match=r"loader\.order\.kind must be local"):
        LoaderConfig(stage="lanes")
