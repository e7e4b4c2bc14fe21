"""A worker that crashes, hangs or is killed costs one source at most."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shards import build_split, open_split
from shards.build.plan import plan_tars
from shards.build.pool import BuildContext, WorkerPool
from tests.shards.build.interrupted import SETTINGS, contents, start_build
from tests.shards.media import moving_squares, write_long_video


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


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


def test_workers_end_with_their_parent(sources, tmp_path):
    build = start_build(sources, tmp_path)
    children = Path(f"/proc/{build.pid}/task/{build.pid}/children")
    folder = tmp_path / "out" / "train"
    wait_until(lambda: len(children.read_text().split()) == 2 and any(folder.glob(".*.part")))
    workers = children.read_text().split()
    build.kill()
    build.communicate()
    wait_until(lambda: not any(_alive(pid) for pid in workers))


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {seconds:.0f} s"
        time.sleep(0.02)


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
