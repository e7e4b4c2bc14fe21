"""Nothing is lost: kills, crashes, tasks, full disks, folders that vanish."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards import ShardError, ShardSettings, Source, build_split, open_split
from shards.build.plan import plan_tars
from shards.build.pool import BuildContext, WorkerPool
from shards.build.split import Watcher
from shards.build.state import merge, reindex
from tests.shards.media import moving_squares, write_long_video, write_video

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = ShardSettings(workers=2, tar_samples=2)
SCRIPT = """
import json, sys
from pathlib import Path
from shards import ShardSettings, Source, build_split
sources = [Source.from_json(s) for s in json.loads(Path(sys.argv[1]).read_text())]
settings = ShardSettings(workers=2, tar_samples=2)
build_split(sources, Path(sys.argv[2]), "train", ["x"], settings)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = moving_squares(60, (320, 240))
    found = [Source(write_video(folder / "v0.mp4", frames), 0, "v0", name="v0.mp4")]
    for number in range(1, 8):
        path = folder / f"v{number}.mp4"
        path.write_bytes(found[0].path.read_bytes())
        found.append(Source(path, 0, f"v{number}", name=path.name))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.fixture(scope="module")
def unbroken(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    assert build_split(sources, out, "train", ["x"], SETTINGS).exit_code == 0
    return contents(out / "train")


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_ends_with_the_same_bytes(sources, unbroken, tmp_path, seed):
    listing = tmp_path / "list.json"
    listing.write_text(json.dumps([source.to_json() for source in sources]))
    rng, folder = np.random.default_rng(seed), tmp_path / "out" / "train"
    command = [sys.executable, "-c", SCRIPT, str(listing), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    written: dict[str, int] = {}
    for _ in range(3):
        build = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        time.sleep(float(rng.uniform(0.3, 1.2)))
        build.send_signal(signal.SIGKILL)
        build.communicate()
        for tar in folder.glob("*.tar"):
            kept = (folder / ".build" / f"{tar.name}.json").is_file()
            if kept and written.setdefault(tar.name, tar.stat().st_mtime_ns):
                assert written[tar.name] == tar.stat().st_mtime_ns, "a finished tar was redone"
    time.sleep(0.2)  # the killed run's workers end with it
    subprocess.run(command, env=environment, check=True)
    assert contents(folder) == unbroken
    for name, stamp in written.items():
        assert (folder / name).stat().st_mtime_ns == stamp


def test_workers_end_with_their_parent(sources, tmp_path):
    listing = tmp_path / "list.json"
    listing.write_text(json.dumps([source.to_json() for source in sources]))
    command = [sys.executable, "-c", SCRIPT, str(listing), str(tmp_path / "out")]
    build = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    children = Path(f"/proc/{build.pid}/task/{build.pid}/children")
    for _ in range(100):
        workers = children.read_text().split()
        if len(workers) == 2:
            break
        time.sleep(0.02)
    time.sleep(0.3)
    build.kill()
    build.wait()
    for _ in range(100):
        if not any(_alive(pid) for pid in workers):
            return
        time.sleep(0.02)
    pytest.fail("a worker outlived the build")


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


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


class Crashing(WorkerPool):
    """A pool whose first worker is killed by a signal in its second source."""

    fatal = signal.SIGSEGV
    struck = False

    def handle_event(self, worker, event, waiting):
        super().handle_event(worker, event, waiting)
        if event["event"] == "begin" and event["i"] == 1 and not Crashing.struck:
            Crashing.struck = True
            os.kill(worker.process.pid, self.fatal)
            if self.fatal != signal.SIGSTOP:
                worker.process.wait()


@pytest.mark.parametrize(
    ("fatal", "status", "kind"),
    [(signal.SIGSEGV, "refused", "crash"), (signal.SIGXCPU, "deferred", "time"),
     (signal.SIGKILL, "deferred", "worker")],
)  # fmt: skip
def test_a_worker_that_dies_takes_one_source_with_it(sources, tmp_path, fatal, status, kind):
    Crashing.fatal, Crashing.struck = fatal, False
    verdicts, finished = [], {}
    settings = replace(SETTINGS, workers=1, tar_samples=4, memory_mb=4096)
    context = BuildContext(tmp_path, settings, {"tars": 2}, verdicts.append, finished.__setitem__)
    Crashing(context).run(plan_tars(sources, "s", settings))
    assert len(finished) == 2
    assert [v["status"] for v in verdicts].count("ok") == 7
    (bad,) = [v for v in verdicts if v["status"] != "ok"]
    assert (bad["status"], bad["kind"]) == (status, kind)


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_its_source_tried_later(sources, tmp_path, monkeypatch):
    Crashing.fatal, Crashing.struck = signal.SIGSTOP, False
    verdicts, finished = [], {}
    settings = replace(SETTINGS, workers=1, tar_samples=4, cpu_seconds=10)
    monkeypatch.setattr("shards.build.pool.HUNG_AFTER", 1)
    context = BuildContext(tmp_path, settings, {"tars": 2}, verdicts.append, finished.__setitem__)
    Crashing(context).run(plan_tars(sources, "s", settings))
    assert [v["status"] for v in verdicts].count("ok") == 7
    (bad,) = [v for v in verdicts if v["status"] != "ok"]
    assert (bad["status"], bad["kind"]) == ("deferred", "time")


def test_out_of_time_is_tried_again_and_never_a_verdict(sources, tmp_path, unbroken):
    long = tmp_path / "v3.mp4"
    write_long_video(long, moving_squares(25, (640, 480)), 240)
    slow = [replace(s, path=long) if s.key == "v3" else s for s in sources]
    first = build_split(slow, tmp_path, "train", ["x"], replace(SETTINGS, cpu_seconds=1))
    assert first.exit_code == 3
    assert [(v["key"], v["status"]) for v in first.refused] == [("v3", "deferred")]
    assert len(open_split(tmp_path, "train")) == 7
    again = build_split(sources, tmp_path, "train", ["x"], SETTINGS)
    assert again.exit_code == 0
    assert contents(tmp_path / "train") == unbroken


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
        with pytest.raises(ShardError, match="No space left on device"):
            build_split(sources, small, "train", ["x"], SETTINGS)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_place_that_cannot_be_written_is_one_clear_line(sources, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="cannot write to"):
        build_split(sources, tmp_path / "file", "train", ["x"], SETTINGS)


def test_classes_must_mean_the_same_in_all_splits(small_set):
    with pytest.raises(ShardError, match="the other splits have other classes"):
        build_split(small_set.sources, small_set.root, "val", ["two", "one"], SETTINGS)
