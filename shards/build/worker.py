"""The process that decodes: one bad or hostile file can take down this process and nothing else.

Reads one JSON job a line from standard input, answers with JSON events on standard output:
`begin` and `end` around every source, `done` after a tar, `fatal` when the set-up is at fault.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.encode.sample import pack
from shards.errors import BadVideo, ShardError
from shards.format.settings import ShardSettings, Source
from shards.format.tars import TarWriter

Send = Callable[..., None]


def _die_with_parent() -> None:
    """Ask Linux to end this process when the parent ends, however that happens."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def limit_memory(megabytes: int) -> None:
    """Bound the address space of this process."""
    size = megabytes << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def limit_cpu(seconds: int) -> None:
    """Let this process use `seconds` more of CPU time; SIGXCPU ends it then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _size_of(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return path.stat().st_size
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return 0


def _disk_trouble(path: Path) -> str:
    """Why the system cannot deliver the bytes of `path`; "" if it can and the video is to blame."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                while file.read(1 << 22):
                    pass
    except OSError as error:
        return error.strerror or str(error)
    return ""


def judge(source: Source, settings: ShardSettings, tar: TarWriter) -> dict[str, Any]:
    """Pack one source and return its verdict; only ShardError (the output's fault) escapes."""
    verdict: dict[str, Any] = {
        "key": source.key,
        "source": source.name,
        "labels": list(source.all_labels),
        "bytes_in": _size_of(source.path),
    }
    before = tar.offset
    if "\0" in str(source.path):
        reason = "a path with a NUL: correct the list"
        return verdict | {"status": "refused", "kind": "path", "reason": reason}
    try:
        about = pack(source, settings, tar)
    except BadVideo as bad:
        if bad.kind == "missing":
            return verdict | {"status": "missing", "kind": bad.kind, "reason": bad.reason}
        if trouble := _disk_trouble(source.path):
            return verdict | _deferred("disk", f"cannot be read: {trouble}")
        return verdict | {"status": "refused", "kind": bad.kind, "reason": bad.reason}
    except MemoryError:
        reason = f"needs more than {settings.memory_mb} MB: see --memory-mb"
        return verdict | {"status": "refused", "kind": "memory", "reason": reason}
    except OSError as error:
        return verdict | _deferred("disk", f"cannot be read: {error.strerror or error}")
    except ShardError:
        raise
    except Exception as error:
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return verdict | _deferred("internal", text)
    kept = {name: about[name] for name in ("frames", "width", "height", "fps", "notes")}
    return verdict | {"status": "ok", "bytes": tar.offset - before} | kept


def _deferred(kind: str, reason: str) -> dict[str, Any]:
    return {"status": "deferred", "kind": kind, "reason": reason}


def write_tar(job: dict[str, Any], send: Send) -> None:
    """Write one tar, from the source `first` on if a worker before this one died in it."""
    settings = ShardSettings(**job["settings"])
    sources = [Source.from_json(data) for data in job["sources"]]
    part = Path(job["part"])
    verdicts: list[dict[str, Any]] = job["verdicts"]
    tar = TarWriter(part, job["offset"])
    for i in range(len(verdicts), len(sources)):
        send(event="begin", i=i)
        limit_cpu(settings.cpu_seconds)
        verdict = judge(sources[i], settings, tar)
        tar.flush()
        verdicts.append(verdict)
        send(event="end", offset=tar.offset, verdict=verdict)
    limit_cpu(settings.cpu_seconds)
    final = Path(job["tar"])
    tar.finish(job["record"] | {"verdicts": verdicts}, final)
    send(event="done", sha256=sha256(final), size=final.stat().st_size)


def _sender() -> Send:
    """Events go to what was standard output; anything printed by libraries goes to the log."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**event: Any) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    return send


def main() -> None:
    """Serve jobs until standard input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    send = _sender()
    for line in sys.stdin:
        job = json.loads(line)
        limit_memory(job["settings"]["memory_mb"])
        try:
            write_tar(job, send)
        except ShardError as error:
            send(event="fatal", message=str(error))
        except OSError as error:
            send(event="fatal", message=f"cannot write {job['part']}: {error.strerror or error}")


if __name__ == "__main__":
    main()
