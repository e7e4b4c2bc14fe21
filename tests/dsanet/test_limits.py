"""A limit of the machine is told from other failures, and named with its value."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import av
import pytest
import torch

from dsanet import limits
from dsanet.engine.main import run_command
from dsanet.limits import LimitError, find_limit, raise_limit
from tests.scarcity import no_descriptors


def test_too_few_descriptors_are_named_with_their_limit() -> None:
    with no_descriptors(), pytest.raises(OSError, match="Too many") as caught:
        os.open("/dev/null", os.O_RDONLY)
    with no_descriptors() as limit:
        reason = find_limit(caught.value)
    assert reason is not None
    assert f"this process may have {limit} (RLIMIT_NOFILE, hard limit" in reason


def test_memory_that_torch_does_not_get_is_named_with_its_limits() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert str(find_limit(caught.value)).startswith("out of memory (")
    assert " MB" in str(find_limit(MemoryError()))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENFILE, "full"), "/proc/sys/fs/file-nr"),
        (RuntimeError("can't start new thread"), "no more threads or processes"),
        (BlockingIOError(errno.EAGAIN, "fork"), "no more threads or processes"),
        (OSError(errno.ENOMEM, "mmap"), "out of memory"),
        (ImportError("x.so: failed to map segment from shared object"), "out of memory"),
        (OSError(errno.ENOSPC, "full", "/data/set/a.tar"), "/data/set/a.tar: no space left in "),
        (OSError(errno.EDQUOT, "full", "/data/a"), "the disk quota is used up in /data"),
        (OSError(errno.ENOSPC, "full"), "no space left on a disk"),
        (LimitError("as it was"), "as it was"),
    ],
)
def test_every_kind_of_limit_is_one_line(error: Exception, text: str) -> None:
    reason = find_limit(error)
    assert reason is not None
    assert text in reason
    assert reason.isprintable()
    with pytest.raises(LimitError) as caught:
        raise_limit(error)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "none", "x"),
        OSError(errno.EIO, "a failing disk"),
        RuntimeError("shapes do not fit"),
        ValueError("too many open files"),
        ImportError("No module named x"),
        av.error.BlockingIOError(errno.EAGAIN, "FFmpeg wants more input"),
    ],
)
def test_other_failures_are_not_taken_for_a_limit(error: Exception) -> None:
    assert find_limit(error) is None
    raise_limit(error)


def test_the_smallest_limit_of_the_control_groups_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/self/cgroup": "0::/slurm/job_7/step_0\n",
        "/sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
        "/sys/fs/cgroup/slurm/job_7/memory.max": f"{3 << 30}\n",
        "/sys/fs/cgroup/slurm/memory.max": f"{9 << 30}\n",
        "/sys/fs/cgroup/slurm/job_7/pids.max": "99\n",
    }
    monkeypatch.setattr(limits, "_read", lambda path: files.get(path, ""))
    assert "the control group's limit 3072 MB" in str(find_limit(MemoryError()))
    assert "pids.max of the control group 99" in str(
        find_limit(RuntimeError("can't start new thread"))
    )
    files["/proc/self/cgroup"] = "9:name=systemd:/\n4:cpu,memory:/job\n"
    files["/sys/fs/cgroup/memory/job/memory.limit_in_bytes"] = f"{2 << 30}"
    assert "the control group's limit 2048 MB" in str(find_limit(MemoryError()))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOSPC, "No space left on device", "/data/run/log"),
    ],
)
def test_a_command_ends_with_one_line(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise error

    assert run_command(main) == 1
    assert capfd.readouterr().err == f"error: {find_limit(error)}\n"


def test_a_full_disk_under_the_metrics_names_the_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from dsanet.engine.run_folder import RunFolder
    from pipelines.quarantine import QuarantineFile

    for name in ("metrics.jsonl", "quarantine.jsonl"):
        (tmp_path / name).symlink_to("/dev/full")
    folder = RunFolder(tmp_path)
    for write in (
        lambda: folder.add({"kind": "train"}),
        lambda: QuarantineFile(folder.quarantine, "train").add(3, "broken"),
    ):
        assert run_command(lambda write=write: write() or 0) == 1
        assert f"no space left in {tmp_path}" in capfd.readouterr().err


def test_threads_that_cannot_be_started_end_those_that_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines.read.thread_pool import ThreadPool

    started, real = [], threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        ThreadPool(5, "test-scarce")
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()
