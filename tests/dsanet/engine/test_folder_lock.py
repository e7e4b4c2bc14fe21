"""One command at a time in a folder; the lock of a command that is gone does not stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dsanet.engine.errors import EngineError
from dsanet.engine.folder_lock import FolderLock
from dsanet.engine.lock_owner import STALE_SECONDS, Owner, this_process, why_stale
from tests.alarm import alarm

ELSEWHERE = replace(this_process(), token="0", host="elsewhere", machine="another", job="")


def write_lock(folder: Path, owner: Owner, age: float = 0.0) -> Path:
    """The lock of another process, renewed `age` seconds ago."""
    path = folder / "lock"
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def ended_process() -> Owner:
    """A process of this machine that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(this_process(), token="0", pid=child.pid, started="1")


def take(folder: Path) -> list[str]:
    """Take and release the lock; the lines that it reports."""
    lines: list[str] = []
    with FolderLock(folder, lines.append):
        assert (folder / "lock").is_file()
    assert list(folder.iterdir()) == []
    return lines


def test_a_second_lock_is_refused_with_the_owner_and_the_remedy(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(EngineError) as refusal, FolderLock(tmp_path):
            pass
        for part in (str(tmp_path), f"pid {os.getpid()}", this_process().host, "another --out"):
            assert part in str(refusal.value)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert take(tmp_path) == []


def test_the_lock_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FolderLock(tmp_path):
        _ = 1 // 0
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_an_ended_process_is_taken_over_at_once(tmp_path: Path) -> None:
    write_lock(tmp_path, ended_process())
    [line] = take(tmp_path)
    assert "its process has ended" in line


def test_what_a_killed_process_left_beside_the_lock_is_removed(tmp_path: Path) -> None:
    write_lock(tmp_path, ended_process()).rename(tmp_path / "lock.0")
    assert take(tmp_path) == []


def test_a_pid_that_was_given_to_another_process_is_not_its_owner(tmp_path: Path) -> None:
    write_lock(tmp_path, replace(this_process(), token="0", started="1"))
    assert "its process has ended" in take(tmp_path)[0]


def test_a_process_that_nobody_has_waited_for_has_ended(tmp_path: Path) -> None:
    code = f"from dsanet.engine.folder_lock import *; FolderLock(Path({str(tmp_path)!r}))"
    code += ".__enter__(); import os; print('held', flush=True); os.kill(os.getpid(), 9)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.read() == b"held\n"  # also its end
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert "its process has ended" in take(tmp_path)[0]
    finally:
        child.stdout.close()
        child.wait()


def test_the_lock_of_another_host_counts_while_it_is_renewed(tmp_path: Path) -> None:
    write_lock(tmp_path, ELSEWHERE, STALE_SECONDS / 2)
    with pytest.raises(EngineError, match="elsewhere"), FolderLock(tmp_path):
        pass
    assert (tmp_path / "lock").is_file()
    write_lock(tmp_path, ELSEWHERE, STALE_SECONDS + 5)
    assert "was not renewed for 30" in take(tmp_path)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": "x"}', b"\xff"])
def test_a_damaged_lock_counts_until_it_is_old(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="cannot be read"), FolderLock(tmp_path):
        pass
    os.utime(path, (time.time() - 1000, time.time() - 1000))
    assert "was not renewed" in take(tmp_path)[0]


def test_a_requeued_job_takes_over_from_itself_on_another_host() -> None:
    owner = replace(ELSEWHERE, job="12", restarts=0)
    assert why_stale(owner, 1.0, replace(this_process(), job="12", restarts=1))
    # Two steps of one start of a job, and other jobs, are two trainings.
    assert why_stale(owner, 1.0, replace(this_process(), job="12", restarts=0)) is None
    assert why_stale(owner, 1.0, replace(this_process(), job="13", restarts=1)) is None
    assert why_stale(ELSEWHERE, 1.0, replace(this_process(), job="", restarts=1)) is None


def test_renewing_sets_the_time_and_restores_a_removed_file(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        lock.renew()
        assert time.time() - lock.path.stat().st_mtime < 60
        lock.path.unlink()
        lock.renew()
        lock.check()
        assert json.loads(lock.path.read_text())["token"] == lock.owner.token


def test_an_owner_that_was_taken_over_stops_and_leaves_the_new_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        write_lock(tmp_path, ELSEWHERE)
        lock.renew()
        with pytest.raises(EngineError, match="was taken over by"):
            lock.check()
    assert json.loads((tmp_path / "lock").read_text())["host"] == "elsewhere"


def test_a_takeover_that_was_killed_is_repeated(tmp_path: Path) -> None:
    write_lock(tmp_path, ended_process())
    (tmp_path / "lock.takeover").touch()
    os.utime(tmp_path / "lock.takeover", (0, 0))
    with FolderLock(tmp_path, lambda line: None):
        assert not (tmp_path / "lock.takeover").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_of_many_at_once_one_gets_the_lock(
    stale: bool, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def no_link(source: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_link)
    if stale:
        write_lock(tmp_path, ended_process())
    held, refused, start, done = [], [], threading.Barrier(8), threading.Barrier(8)

    def try_it() -> None:
        start.wait()
        try:
            with FolderLock(tmp_path, lambda line: None) as lock:
                held.append(lock)
                done.wait()
        except EngineError as error:
            refused.append(error)
            done.wait()

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert len(refused) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ['{"pid": 1}', "[" * 30000, "\xff", json.dumps(asdict(this_process()) | {"restarts": "x"}),
     json.dumps(asdict(this_process()) | {"pid": [1]})],
)  # fmt: skip
def test_a_forged_lock_is_one_of_an_unknown_owner(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content, encoding="latin-1")
    with pytest.raises(EngineError, match="in use by another process, which cannot be read"):
        take(tmp_path)


def test_a_pipe_in_place_of_the_lock_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with alarm(), pytest.raises(OSError, match="named pipe"):
        take(tmp_path)
