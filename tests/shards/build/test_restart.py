"""Nothing is lost: kills, crashes, tasks, full disks, folders that vanish."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from shards import ShardError, Source, build_split, open_split
from shards.build.split import Watcher
from shards.build.state import merge, reindex
from tests.shards.build.interrupted import SETTINGS, contents, start_build


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_ends_with_the_same_bytes(sources, unbroken, tmp_path, seed):
    rng, folder = np.random.default_rng(seed), tmp_path / "out" / "train"
    written: dict[str, int] = {}
    for _ in range(3):
        build = start_build(sources, tmp_path)
        time.sleep(float(rng.uniform(0.3, 1.2)))
        build.send_signal(signal.SIGKILL)
        build.communicate()
        for tar in folder.glob("*.tar"):
            kept = (folder / ".build" / f"{tar.name}.json").is_file()
            if kept and written.setdefault(tar.name, tar.stat().st_mtime_ns):
                assert written[tar.name] == tar.stat().st_mtime_ns, "a finished tar was redone"
    last = start_build(sources, tmp_path)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert contents(folder) == unbroken
    for name, stamp in written.items():
        assert (folder / name).stat().st_mtime_ns == stamp


def test_tasks_and_merge_make_the_same_set(sources, unbroken, tmp_path):
    reports = []
    for number in (2, 0):
        task = (number, 3)
        reports.append(build_split(sources, tmp_path, "train", ["x"], SETTINGS, task=task))
    assert not reports[-1].complete
    with pytest.raises(ShardError, match="not finished"):
        open_split(tmp_path, "train")
    with pytest.raises(ShardError, match="1 of 4 tars are not finished"):
        merge(tmp_path / "train")
    last = build_split(sources, tmp_path, "train", ["x"], SETTINGS, task=(1, 3))
    assert last.complete
    assert contents(tmp_path / "train") == unbroken
    (tmp_path / "train" / "manifest.json").unlink()
    merge(tmp_path / "train")
    assert contents(tmp_path / "train") == unbroken


def test_reindex_rebuilds_everything_from_the_tars(unbroken, sources, tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    for name, data in unbroken.items():
        if name.endswith(".tar"):
            (folder / name).write_bytes(data)
    reindex(folder)
    assert contents(folder) == unbroken
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.tar")}
    report = build_split(sources, tmp_path, "train", ["x"], SETTINGS)  # knows it is done
    assert report.ok == 8
    assert before == {p.name: p.stat().st_mtime_ns for p in folder.glob("*.tar")}


def test_reindex_names_a_missing_tar(unbroken, tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "train-000001.tar").write_bytes(unbroken["train-000001.tar"])
    with pytest.raises(ShardError, match=r"3 of 4 tars are missing, the first is train-000000.tar"):
        reindex(folder)


def test_a_missing_video_that_turns_up_is_added(sources, tmp_path, unbroken):
    late = tmp_path / "late.mp4"
    listed = [replace(s, path=late) if s.key == "v5" else s for s in sources]
    first = build_split(listed, tmp_path, "train", ["x"], SETTINGS)
    assert [(v["key"], v["kind"]) for v in first.refused] == [("v5", "missing")]
    assert first.exit_code == 3
    late.write_bytes(sources[5].path.read_bytes())
    assert build_split(listed, tmp_path, "train", ["x"], SETTINGS).exit_code == 0
    assert contents(tmp_path / "train") == unbroken


def test_a_second_build_of_the_same_folder_is_kept_out(sources, tmp_path):
    def disturb(verdict):
        with pytest.raises(ShardError, match="another process"):
            build_split(sources, tmp_path, "train", ["x"], SETTINGS)

    build_split(sources, tmp_path, "train", ["x"], SETTINGS, watcher=Watcher(verdict=disturb))


def test_a_folder_that_vanishes_stops_the_build_with_one_line(sources, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    moved = []
    for source in sources:
        (folder / source.name).write_bytes(source.path.read_bytes())
        moved.append(replace(source, path=folder / source.name))

    def unmount(verdict):
        if folder.is_dir():
            folder.rename(tmp_path / "away")

    settings = replace(SETTINGS, workers=1)
    with pytest.raises(ShardError, match="videos is gone; restore it"):
        build_split(
            moved, tmp_path / "out", "train", ["x"], settings, watcher=Watcher(verdict=unmount)
        )
    (tmp_path / "away").rename(folder)
    assert build_split(moved, tmp_path / "out", "train", ["x"], settings).exit_code == 0


@pytest.mark.parametrize(("root", "message"), [("no", "does not exist"), (".", "none of the 1")])
def test_a_wrong_folder_of_videos_is_named(tmp_path, root, message):
    with pytest.raises(ShardError, match=message):
        build_split([Source(tmp_path / root / "x.mp4", 0, "x")], tmp_path, "train", ["x"])


def test_a_full_disk_is_one_clear_line(sources, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small]).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(ShardError, match="no space left in"):
            build_split(sources, small, "train", ["x"], SETTINGS)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_place_that_cannot_be_written_is_one_clear_line(sources, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="cannot write to"):
        build_split(sources, tmp_path / "file", "train", ["x"], SETTINGS)


def test_classes_must_mean_the_same_in_all_splits(small_set):
    with pytest.raises(ShardError, match="split train has other classes"):
        build_split(small_set.sources, small_set.root, "val", ["two", "one"], SETTINGS)
