"""The worker process, which decodes and encodes: a hostile video can crash it and nothing else.

It reads one JSON job per line from standard input and writes JSON events to standard output:
`begin` and `end` around every source, `done` after a tar, `fatal` if the output cannot be written.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsanet.errors import UserError
from dsanet.limits import find_limit, raise_limit
from shards.encode.sample import pack
from shards.errors import BadVideo, ShardError, ShardUsageError
from shards.format.files import open_regular, sha256
from shards.format.settings import ShardSettings, Source
from shards.format.tars import TarWriter

Send = Callable[..., None]


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent ends for any reason."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def limit_memory(megabytes: int) -> None:
    """Limit the address space of this process.

    Raises:
        ShardUsageError: when the shell that started the build allows less.
    """
    size, hard = megabytes << 20, resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY and hard < size:
        raise ShardUsageError(
            f"--memory-mb must be at most {hard >> 20}, got {megabytes}: the address space of this "
            "shell is limited (RLIMIT_AS); give less, or raise the limit with ulimit -v"
        )
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def limit_cpu(seconds: int) -> None:
    """Limit the CPU time of this process to `seconds` from now; SIGXCPU ends it then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _size_in_bytes(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return path.stat().st_size
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return 0


def _read_data(descriptor: int) -> None:
    """Read a file without its holes: they cannot fail, and may have terabytes."""
    end, size = 0, os.fstat(descriptor).st_size
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        os.lseek(descriptor, start, os.SEEK_SET)
        while start < end and (block := os.read(descriptor, min(end - start, 1 << 22))):
            start += len(block)


def find_read_error(path: Path) -> str:
    """Return the system's error while reading `path`, "" if there is none: the video is bad."""
    try:
        if path.is_file():
            with open_regular(path) as file:
                _read_data(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def add_with_verdict(source: Source, settings: ShardSettings, tar: TarWriter) -> dict[str, Any]:
    """Add one source to `tar` and return its verdict.

    Raises ShardError if the output cannot be written, and LimitError if the machine, or this
    process, has no more descriptors or threads; every other error becomes a verdict.
    """
    verdict: dict[str, Any] = {
        "key": source.key,
        "source": source.name,
        "labels": list(source.all_labels),
        "bytes_in": _size_in_bytes(source.path),
    }
    before = tar.offset
    if "\0" in str(source.path):
        reason = "a path with a NUL: correct the list"
        return verdict | {"status": "refused", "kind": "path", "reason": reason}
    try:
        metadata = pack(source, settings, tar)
    except BadVideo as bad:
        if bad.kind == "missing":
            return verdict | {"status": "missing", "kind": bad.kind, "reason": bad.reason}
        if read_error := find_read_error(source.path):
            return verdict | _deferred("disk", f"cannot be read: {read_error}")
        return verdict | {"status": "refused", "kind": bad.kind, "reason": bad.reason}
    except MemoryError:
        return verdict | _needs_memory(settings)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return verdict | _needs_memory(settings)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of a write, which names no file
            error.filename = str(tar.path)
        raise_limit(error)
        return verdict | _deferred("disk", f"cannot be read: {error.strerror or error}")
    except ShardError:
        raise
    except Exception as error:
        raise_limit(error)
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return verdict | _deferred("internal", text)
    names = ("frames", "width", "height", "fps", "notes")
    sample = {name: metadata[name] for name in names}
    return verdict | {"status": "ok", "bytes": tar.offset - before} | sample


def _needs_memory(settings: ShardSettings) -> dict[str, Any]:
    reason = f"needs more than {settings.memory_mb} MB: see --memory-mb"
    return {"status": "refused", "kind": "memory", "reason": reason}


def _deferred(kind: str, reason: str) -> dict[str, Any]:
    return {"status": "deferred", "kind": kind, "reason": reason}


def write_tar(job: dict[str, Any], send: Send) -> None:
    """Write the tar of a job, from the first source without a verdict on."""
    settings = ShardSettings(**job["settings"])
    sources = [Source.from_json(data) for data in job["sources"]]
    part = Path(job["part"])
    verdicts: list[dict[str, Any]] = job["verdicts"]
    tar = TarWriter(part, job["offset"])
    for i in range(len(verdicts), len(sources)):
        send(event="begin", i=i)
        limit_cpu(settings.cpu_seconds)
        verdict = add_with_verdict(sources[i], settings, tar)
        tar.flush()
        verdicts.append(verdict)
        send(event="end", offset=tar.offset, verdict=verdict)
    limit_cpu(settings.cpu_seconds)
    final = Path(job["tar"])
    tar.finish(job["record"] | {"verdicts": verdicts}, final)
    send(event="done", sha256=sha256(final), size=final.stat().st_size)


def _open_event_channel() -> Send:
    """Return a function that writes events to standard output; prints of libraries go to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**event: Any) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    return send


def main() -> None:
    """Run jobs until standard input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    send = _open_event_channel()
    for line in sys.stdin:
        job = json.loads(line)
        try:
            limit_memory(job["settings"]["memory_mb"])
            write_tar(job, send)
        except UserError as error:
            send(event="fatal", message=str(error))
        except OSError as error:
            error.filename = error.filename or job["part"]
            reason = find_limit(error) or f"cannot write {job['part']}: {error.strerror or error}"
            send(event="fatal", message=reason)


if __name__ == "__main__":
    main()
