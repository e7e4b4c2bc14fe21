"""Tars copied to node-local scratch, and sets fetched from http, s3 and the like.

One process per node copies, the others wait for its lock. A tar appears under its name only when
all of it is there and its SHA-256 is the manifest's, so the name itself marks completeness; an
interrupted copy is taken up tar by tar. Where it cannot be done (no room, a failing disk) the
original is used, and that is said.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipelines.config import LoaderConfig
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.read.filesystems import filesystem, is_network
from shards import Split, open_split

CHUNK = 8 << 20
MARGIN = 1 << 30  # bytes left free on the scratch disk
INDEX = ("manifest.json", "samples.npy", "frames.npy", "keys.npy", "labels.npy", "fragments.npy",
         "sources.jsonl")  # fmt: skip


def say(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


def scratch_folder(config: LoaderConfig) -> Path | None:
    """Node-local scratch: as configured, else what SLURM gives."""
    found = config.scratch or os.environ.get("SLURM_TMPDIR")
    return Path(found) if found else None


def open_data(data: str | Path, name: str, config: LoaderConfig) -> Split:
    """Open a split by path, or by URL: then it is first fetched to scratch through fsspec.

    ShardError or LoaderError name what is missing and the remedy.
    """
    if "://" not in str(data):
        return open_split(data, name)
    scratch = scratch_folder(config)
    if scratch is None:
        raise LoaderUsageError(f"{data}: remote sets are staged: give --loader.scratch DIR")
    return open_split(fetch(str(data), name, scratch), name)


def fetch(url: str, name: str, scratch: Path) -> Path:
    """Copy a split behind `url` to scratch; returns the local root of the set."""
    try:
        import fsspec
    except ImportError:
        raise LoaderError(f"{url}: remote sets need fsspec: pip install -e '.[remote]'") from None
    root = scratch / f"dsanet-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    with _locked(root / name):
        _renew(fsspec, url, name, root)
        for file in INDEX:
            _download(fsspec, url, name, file, root)
        split = open_split(root, name)
        need = sum(t["size"] for t in split.manifest["tars"] if not _whole(root / name, t))
        _require_room(root, need, url)
        for tar in split.manifest["tars"]:
            _download(fsspec, url, name, Path(tar["name"]).stem + ".idx", root)
            if not _whole(root / name, tar):
                with _remote(fsspec, f"{url}/{name}/{tar['name']}") as source:
                    _copy(source, root / name / tar["name"], tar["sha256"])
    return root


def stage(split: Split, config: LoaderConfig, tars: Iterable[int] | None = None) -> Split:
    """The split with its tars (all, or those numbered) on scratch, or as it was where that fails.

    Does nothing for `stage: off`, and for `auto` outside SLURM.
    """
    if config.stage == "off" or (config.stage == "auto" and "SLURM_JOB_ID" not in os.environ):
        return split
    scratch = scratch_folder(config)
    if scratch is None:
        if config.stage != "auto":
            raise LoaderUsageError(f"loader.stage {config.stage} needs --loader.scratch DIR")
        return split
    numbers = sorted(set(range(len(split.tars)) if tars is None else tars))
    try:
        return _staged(split, scratch, numbers)
    except (OSError, LoaderError) as error:
        say(f"warning: not staged, reading from {split.root}: {error}")
        return split


def _staged(split: Split, scratch: Path, numbers: list[int]) -> Split:
    identity = hashlib.sha256(repr(split.manifest["tars"]).encode()).hexdigest()[:12]
    folder = scratch / f"dsanet-{identity}" / split.name
    with _locked(folder):
        entries = split.manifest["tars"]
        missing = [n for n in numbers if not _whole(folder, entries[n])]
        size = sum(entries[n]["size"] for n in missing)
        _require_room(folder, size, str(split.root))
        if missing:
            say(f"staging {len(missing)} tars ({size / 1e9:.2f} GB) to {folder}")
        for number in missing:
            with open(split.tars[number], "rb") as source:
                _copy(source, folder / entries[number]["name"], entries[number]["sha256"])
    local = copy.copy(split)
    local.tars = list(split.tars)
    for number in numbers:
        local.tars[number] = folder / entries[number]["name"]
    return local


def _whole(folder: Path, entry: dict[str, Any]) -> bool:
    path = folder / entry["name"]
    return path.exists() and path.stat().st_size == entry["size"]


def _require_room(folder: Path, size: int, source: str) -> None:
    free = shutil.disk_usage(folder).free
    if size and size + MARGIN > free:
        raise LoaderError(
            f"{folder} has {free / 1e9:.1f} GB free, {source} needs {(size + MARGIN) / 1e9:.1f} GB:"
            " free some, or choose another --loader.scratch"
        )


def _copy(source: BinaryIO, target: Path, sha256: str) -> None:
    """Copy one tar, checking it on the way; it takes its name when it is whole."""
    partial, digest = target.with_name(f".{target.name}.part"), hashlib.sha256()
    with open(partial, "wb") as out:
        while block := source.read(CHUNK):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != sha256:
        partial.unlink()
        raise LoaderError(f"{target.name} differs from the manifest's SHA-256: is it damaged?")
    partial.replace(target)


@contextlib.contextmanager
def _remote(fsspec: Any, address: str) -> Iterator[BinaryIO]:
    """A file behind an address, open for reading; LoaderError for whatever its store raises, which
    for most stores is no OSError."""
    try:
        with fsspec.open(address, "rb") as file:
            yield file
    except LoaderError:
        raise
    except FileNotFoundError:
        raise LoaderError(f"{address} is not there: check the address") from None
    except ImportError as error:
        raise LoaderError(f"{address}: {error} (pip install it)") from None
    except Exception as error:
        kind = type(error).__name__
        raise LoaderError(
            f"{address} cannot be fetched: {kind}: {error} (check the address, the network, the "
            "credentials and the room on scratch)"
        ) from None


def _renew(fsspec: Any, url: str, name: str, root: Path) -> None:
    """Fetch the manifest anew; where the set has changed since, forget what was fetched of it."""
    folder, had = root / name, root / name / "manifest.json"
    before = had.read_bytes() if had.exists() else None
    try:
        with _remote(fsspec, f"{url}/{name}/manifest.json") as source:
            now = source.read()
    except LoaderError as error:
        if before is None:
            raise
        return say(f"warning: {url}: not looked for changes, using what was fetched: {error}")
    if before is not None and now != before:
        say(f"{url}: {name} has changed since it was fetched: fetching it again")
        for file in folder.iterdir():
            if file.name != ".lock":
                file.unlink()


def _download(fsspec: Any, url: str, name: str, file: str, root: Path) -> None:
    target = root / name / file
    if target.exists():
        return
    partial = target.with_name(f".{file}.part")
    with _remote(fsspec, f"{url}/{name}/{file}") as source, open(partial, "wb") as out:
        shutil.copyfileobj(source, out, CHUNK)
    partial.replace(target)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process of a node copies; the others wait here and then find the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lane_tars(split: Split, order: np.ndarray, ranks: Iterable[int], world: int) -> np.ndarray:
    """Numbers of the tars that these ranks of `world` read in this order."""
    mine = np.concatenate([order[rank::world] for rank in ranks])
    return np.unique(split.samples["tar"][mine])


def node_ranks(rank: int) -> range:
    """The ranks on this node, from what torchrun or SLURM say."""
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    count = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", "1")))
    return range(rank - local, rank - local + max(count, local + 1))


def warn_of_network(split: Split, config: LoaderConfig) -> None:
    """Say so when single frames will be read at random from a network file system."""
    folder = split.tars[0].parent if split.tars else split.root
    if config.order.kind != "blocked" and is_network(folder):
        say(
            f"warning: {folder} is on a network file system ({filesystem(folder)}), where random "
            "reads are slow: stage the tars (--loader.stage all --loader.scratch DIR) or read them "
            "in blocks (--loader.order.kind blocked)"
        )
