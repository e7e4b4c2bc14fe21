"""Copies tars to node-local scratch, so that a network disk is read once and in order.

One process of a node copies; the others wait for its lock. A tar gets its name when it is complete
and its SHA-256 equals the manifest's, so an interrupted copy continues with the next tar. When
copying fails (no space, a failing disk), a warning is printed and the original is read.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dsanet.errors import require
from dsanet.terminal import print_line
from dsanet.variables import read_number
from pipelines.config import LoaderConfig
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.read.filesystems import filesystem, is_network
from pipelines.read.thread_pool import ThreadPool
from shards import Split

CHUNK = 8 << 20
MARGIN = 1 << 30  # bytes left free on the scratch disk


def log(message: str) -> None:
    """Print one line on stderr."""
    print_line(message, error=True)


def scratch_folder(config: LoaderConfig) -> Path | None:
    """Node-local scratch: loader.scratch, else SLURM_TMPDIR, else None."""
    folder = config.scratch or os.environ.get("SLURM_TMPDIR")
    return Path(folder) if folder else None


def stage(split: Split, config: LoaderConfig, tars: Iterable[int] | None = None) -> Split:
    """Copy tars (numbers, None for all) to scratch; returns the split that reads the copies.

    Does nothing for loader.stage off, and for auto outside SLURM. When copying fails, a warning is
    printed and the split is returned unchanged.

    Raises:
        LoaderUsageError: for loader.stage all or lanes without a scratch folder.
    """
    if config.stage == "off" or (config.stage == "auto" and "SLURM_JOB_ID" not in os.environ):
        return split
    scratch = scratch_folder(config)
    if scratch is None:
        must = f"name a folder on a local disk with loader.stage {config.stage}"
        require(config.stage == "auto", "loader.scratch", must, None, LoaderUsageError)
        return split
    numbers = sorted(set(range(len(split.tars)) if tars is None else tars))
    try:
        return _stage_tars(split, scratch, numbers, config.read_threads)
    except (OSError, LoaderError) as error:
        log(f"warning: tars are not staged, reading them from {split.root}: {error}")
        return split


def _stage_tars(split: Split, scratch: Path, numbers: list[int], threads: int) -> Split:
    identity = hashlib.sha256(repr(split.manifest["tars"]).encode()).hexdigest()[:12]
    folder = scratch / f"dsanet-{identity}" / split.name
    entries = split.manifest["tars"]
    with locked(folder):
        missing = [n for n in numbers if not is_complete(folder, entries[n])]
        size = sum(entries[n]["size"] for n in missing)
        require_space(folder, size, str(split.root))
        if missing:
            log(f"staging {len(missing)} tars ({size / 1e9:.2f} GB) to {folder}")
        paths = {entries[number]["name"]: split.tars[number] for number in missing}
        copy_tars(
            [entries[number] for number in missing],
            lambda entry: paths[entry["name"]].open("rb"),
            folder,
            threads,
        )
    local = copy.copy(split)
    local.tars = list(split.tars)
    for number in numbers:
        local.tars[number] = folder / entries[number]["name"]
    return local


def is_complete(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the tar of a manifest entry is in `folder`, in full size."""
    path = folder / entry["name"]
    return path.exists() and path.stat().st_size == entry["size"]


def require_space(folder: Path, size: int, source: str) -> None:
    """Raise LoaderError unless `folder` has room for `size` bytes of `source`."""
    free = shutil.disk_usage(folder).free
    if size and size + MARGIN > free:
        raise LoaderError(
            f"{folder}: {free / 1e9:.1f} GB free, but {source} needs {(size + MARGIN) / 1e9:.1f} "
            "GB; free some space, or choose another loader.scratch"
        )


def copy_tars(
    entries: Sequence[dict[str, Any]],
    open_source: Callable[[dict[str, Any]], AbstractContextManager[BinaryIO]],
    folder: Path,
    threads: int,
) -> None:
    """Copy the tars of manifest entries into `folder`, several at a time, and print the speed.

    After a failure no further copy begins, and those under way are completed.

    Raises:
        OSError, LoaderError: the first failure of a copy.
    """
    if not entries:
        return
    failed = threading.Event()

    def copy_one(entry: dict[str, Any]) -> None:
        if failed.is_set():
            return
        try:
            with open_source(entry) as source:
                copy_verified(source, folder, entry)
        except BaseException:
            failed.set()
            raise

    start = time.perf_counter()
    pool = ThreadPool(min(threads, len(entries)), "loader-stage")
    try:
        pool.map(copy_one, entries)
    finally:
        failed.set()  # where the wait was interrupted
        pool.close()
    seconds, size = time.perf_counter() - start, sum(entry["size"] for entry in entries)
    log(
        f"copied {len(entries)} tars ({size / 1e9:.2f} GB) in {seconds:.1f} s: "
        f"{size / 1e6 / seconds:.0f} MB/s"
    )


def copy_verified(source: BinaryIO, folder: Path, entry: dict[str, Any]) -> None:
    """Copy the tar of a manifest entry into `folder`; it gets its name once it is verified.

    LoaderError for a SHA-256 other than the manifest's.
    """
    target = folder / entry["name"]
    partial, digest = target.with_name(f".{target.name}.part"), hashlib.sha256()
    with open(partial, "wb") as out:
        while block := source.read(CHUNK):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != entry["sha256"]:
        partial.unlink()
        raise LoaderError(
            f"{target.name}: its SHA-256 is not the manifest's, so it is damaged; check the set "
            "with tools/shard.py verify"
        )
    partial.replace(target)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` and hold its lock, so that one process of a node copies at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lane_tars(split: Split, order: np.ndarray, ranks: Iterable[int], world: int) -> np.ndarray:
    """Numbers of the tars that these ranks of `world` read in this order of sample ids (N,)."""
    samples = np.concatenate([order[rank::world] for rank in ranks])
    return np.unique(split.samples["tar"][samples])


def node_ranks(rank: int) -> range:
    """The ranks on this node, from the environment of torchrun or SLURM.

    Raises:
        VariableError: when a variable is not a number.
    """
    local = read_number("LOCAL_RANK" if "LOCAL_RANK" in os.environ else "SLURM_LOCALID", 0)
    torchrun = "LOCAL_WORLD_SIZE" in os.environ
    count = read_number("LOCAL_WORLD_SIZE" if torchrun else "SLURM_NTASKS_PER_NODE", 1)
    return range(rank - local, rank - local + max(count, local + 1))


def warn_of_network(split: Split, config: LoaderConfig) -> None:
    """Print a warning if single frames will be read at random from a network file system."""
    folder = split.tars[0].parent if split.tars else split.root
    if config.order.kind != "blocked" and is_network(folder):
        log(
            f"warning: {folder} is on a network file system ({filesystem(folder)}), where random "
            "reads are slow; stage the tars (--loader.stage all --loader.scratch DIR) or read them "
            "in blocks (--loader.order.kind blocked)"
        )
