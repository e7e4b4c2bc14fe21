"""Opens shard sets, local ones and those behind http, s3 and other URLs.

A remote set is first fetched to node-local scratch. One process of a node fetches; a file gets its
name when it is complete, so an interrupted fetch continues with the next file. Nothing of the
server is believed: the manifest is checked before anything else is fetched, no file may be longer
than the manifest allows, and what does not fit is removed and fetched once more.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import LoaderConfig
from pipelines.errors import HangError, LoaderError, LoaderUsageError
from pipelines.hang_limits import time_limit
from pipelines.read.scratch import (
    LOCK,
    copy_tars,
    copy_verified,
    is_complete,
    locked,
    log,
    require_space,
    scratch_folder,
    write_blocks,
)
from pipelines.read.store import Store
from pipelines.read.transfer import StallFlag, blocks, run_copies
from shards import ShardError, Split, open_split
from shards.format.files import read_regular, write_atomic
from shards.format.index import ARRAYS, check_idx_files
from shards.format.manifest import MANIFEST, parse_manifest
from shards.format.manifest_schema import MAX_BYTES

SOURCES = "sources.jsonl"
NPY_HEADER = 4096  # bytes; NumPy's own have 128 to 512
MAX_FIELDS = 4  # a later version may add fields, up to so many times the bytes of a row
MAX_VERDICT = 16 << 10  # bytes of a line of sources.jsonl
IDX_SAMPLE = 1 << 10  # bytes of a line of an .idx file
MAX_INDEX = 1 << 30  # bytes by which a file of the index may exceed all tars together
ATTEMPTS = 2


def open_data(data: str | Path, name: str, config: LoaderConfig) -> Split:
    """Open a split of a shard set by path, or by URL after fetching it to scratch.

    Raises:
        ShardError: for a set that is missing or damaged.
        LoaderError: when a remote set cannot be fetched.
    """
    if "://" not in str(data):
        with time_limit(config.hang):
            return open_split(data, name)
    scratch = scratch_folder(config)
    if scratch is None:
        raise LoaderUsageError(
            f"{data}: a remote set is copied to a local disk first; give --loader.scratch DIR"
        )
    return RemoteSplit(str(data), name, scratch, config).fetch()


class RemoteSplit:
    """A split behind a URL, and its copy on scratch."""

    def __init__(self, url: str, name: str, scratch: Path, config: LoaderConfig) -> None:
        self.url, self.name, self.config = url, name, config
        self.store = Store(url, name, config.remote)
        self.root = scratch / f"dsanet-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self.folder = self.root / name

    def fetch(self) -> Split:
        """Fetch what is not on scratch yet; returns the opened copy.

        Raises:
            LoaderError: when it cannot be fetched, or is not a valid set.
        """
        with locked(self.folder, self.config.hang):
            manifest = self._refresh_manifest()
            split = self._fetch_index(manifest)
            missing = [e for e in manifest["tars"] if not is_complete(self.folder, e)]
            require_space(self.root, sum(entry["size"] for entry in missing), self.url)
            what = f"tars from {self.store.address} (loader.remote.idle)"
            copy_tars(missing, self._fetch_tar, self.config.reading_threads, self._idle, what)
        return split

    @property
    def _idle(self) -> float:
        """Seconds without a byte at which a store counts as hung that keeps no limit of its own."""
        return self.config.remote.idle + 5

    def _refresh_manifest(self) -> dict[str, Any]:
        """The manifest; where it is another one than that on scratch, the local files go."""
        path = self.folder / MANIFEST
        local = read_regular(path, MAX_BYTES) if path.is_file() else None
        try:
            content = self._read_manifest()
            manifest = self._parse(content, self.store.address)
        except HangError:
            raise
        except LoaderError as error:
            if local is None:
                raise
            manifest = self._parse(local, str(self.folder))
            log(f"warning: {self.url}: cannot check for changes, using the local copy: {error}")
            return manifest
        if content != local:
            if local is not None:
                log(f"{self.url}: split {self.name} has changed since it was fetched; fetching it")
            self._remove(lambda file: file.name != LOCK)
            write_atomic(path, content)
        return manifest

    def _read_manifest(self) -> bytes:
        read: list[bytes] = []
        run_copies(
            lambda name, flag: read.append(self.store.read(name, MAX_BYTES, flag)),
            [MANIFEST],
            1,
            self._idle,
            f"{self.store.address}/{MANIFEST} (loader.remote.idle)",
        )
        return read[0]

    def _parse(self, content: bytes, where: str) -> dict[str, Any]:
        try:
            return parse_manifest(content, f"{where}/{MANIFEST}", "correct it on the server")
        except ShardError as error:
            raise LoaderError(str(error)) from None

    def _fetch_index(self, manifest: dict[str, Any]) -> Split:
        """Fetch the arrays and lists that are missing; returns the split, opened and checked.

        Files that do not fit the manifest are fetched once more.
        """
        limits = index_limits(manifest)
        for attempt in range(ATTEMPTS):
            missing = [name for name in limits if not (self.folder / name).is_file()]
            run_copies(
                lambda name, flag: self._fetch_file(name, limits[name], flag),
                missing,
                self.config.reading_threads,
                self._idle,
                f"the index from {self.store.address} (loader.remote.idle)",
            )
            try:
                split = open_split(self.root, self.name)
                if missing or self.config.reader == "webdataset":
                    check_idx_files(split)
                return split
            except ShardError as error:
                # The message ends in a remedy for a set of one's own.
                fault = str(error).rpartition("; ")[0] or str(error)
                self._remove(lambda file: file.name in limits)
                if attempt == 0:
                    log(f"warning: {fault}; fetching the index again")
        raise LoaderError(
            f"{self.store.address}: the index does not fit the manifest ({fault}); it is damaged "
            "or being changed: wait, or repair the set where it lies"
        )

    def _fetch_file(self, name: str, limit: int, flag: StallFlag) -> None:
        address, seconds = f"{self.store.address}/{name}", self.config.remote.total
        with self.store.open(name) as source:
            write_blocks(blocks(source, limit, flag, address, seconds), self.folder / name, flag)

    def _fetch_tar(self, entry: dict[str, Any], flag: StallFlag) -> None:
        name, seconds = entry["name"], self.config.remote.total
        for attempt in range(ATTEMPTS):
            try:
                return copy_verified(
                    lambda: self.store.open(name), self.folder / name, entry, flag, seconds
                )
            except LoaderError as error:
                if attempt == ATTEMPTS - 1:
                    raise LoaderError(f"{self.store.address}: {error}") from None
                log(f"warning: {self.store.address}: {error}; fetching it again")

    def _remove(self, wanted: Callable[[Path], bool]) -> None:
        """Remove what was fetched, where `wanted(path)` holds."""
        for file in self.folder.iterdir():
            if wanted(file):
                shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def index_limits(manifest: dict[str, Any]) -> dict[str, int]:
    """The files of the index of a split, and the most bytes that each may have."""
    counts = manifest["counts"]
    samples, frames = counts["samples"], counts["frames"]
    rows = {
        "samples": samples,
        "keys": samples,
        "frames": frames,
        "labels": samples * max(1, len(manifest["classes"])),
        "fragments": frames + samples,
    }
    limits = {
        f"{name}.npy": NPY_HEADER + MAX_FIELDS * rows[name] * dtype.itemsize
        for name, dtype in ARRAYS.items()
    }
    limits[SOURCES] = MAX_VERDICT * (1 + sum(counts["sources"].values()))
    for entry in manifest["tars"]:
        limits[f"{Path(entry['name']).stem}.idx"] = IDX_SAMPLE * (1 + entry["samples"])
    # Counts that are absurd do not let a server fill the disk.
    most = MAX_INDEX + sum(entry["size"] for entry in manifest["tars"])
    return {name: min(limit, most) for name, limit in limits.items()}
