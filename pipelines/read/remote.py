"""Opens shard sets, local ones and those behind http, s3 and other URLs.

A remote set is first fetched to node-local scratch. One process of a node fetches; a file gets its
name when it is complete, so an interrupted fetch continues with the next file.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.config import LoaderConfig
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.hang_limits import time_limit
from pipelines.read.staging import (
    CHUNK,
    copy_tars,
    is_complete,
    locked,
    log,
    require_space,
    scratch_folder,
)
from shards import Split, open_split

INDEX = ("manifest.json", "samples.npy", "frames.npy", "keys.npy", "labels.npy", "fragments.npy",
         "sources.jsonl")  # fmt: skip


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
    return open_split(fetch_split(str(data), name, scratch, config.read_threads), name)


def fetch_split(url: str, name: str, scratch: Path, threads: int) -> Path:
    """Copy a split of the set at `url` to scratch; returns the local root of the set."""
    try:
        import fsspec
    except ImportError:
        raise LoaderError(f"{url}: needs the package fsspec; pip install -e '.[remote]'") from None
    root = scratch / f"dsanet-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    folder = root / name
    with locked(folder):
        _refresh_manifest(fsspec, url, name, folder)
        for file in INDEX:
            _download(fsspec, f"{url}/{name}/{file}", folder)
        tars = open_split(root, name).manifest["tars"]
        missing = [entry for entry in tars if not is_complete(folder, entry)]
        require_space(root, sum(entry["size"] for entry in missing), url)
        for entry in tars:
            _download(fsspec, f"{url}/{name}/{Path(entry['name']).stem}.idx", folder)
        copy_tars(
            missing,
            lambda entry: _open_remote(fsspec, f"{url}/{name}/{entry['name']}"),
            folder,
            threads,
        )
    return root


def _refresh_manifest(fsspec: Any, url: str, name: str, folder: Path) -> None:
    """Compare the local manifest with the remote one; delete the local files if it has changed."""
    path = folder / "manifest.json"
    local = path.read_bytes() if path.exists() else None
    try:
        with _open_remote(fsspec, f"{url}/{name}/manifest.json") as source:
            remote = source.read()
    except LoaderError as error:
        if local is None:
            raise
        return log(f"warning: {url}: cannot check for changes, using the local copy: {error}")
    if local is not None and remote != local:
        log(f"{url}: split {name} has changed since it was fetched; fetching it again")
        for file in folder.iterdir():
            if file.name != ".lock":
                file.unlink()


def _download(fsspec: Any, address: str, folder: Path) -> None:
    """Fetch a file into `folder` unless it is there."""
    target = folder / address.rpartition("/")[2]
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.part")
    with _open_remote(fsspec, address) as source, open(partial, "wb") as out:
        shutil.copyfileobj(source, out, CHUNK)
    partial.replace(target)


@contextlib.contextmanager
def _open_remote(fsspec: Any, address: str) -> Iterator[BinaryIO]:
    """Open a remote file for reading.

    LoaderError for any exception of the store; those of most stores are not OSErrors.
    """
    try:
        with fsspec.open(address, "rb") as file:
            yield file
    except LoaderError:
        raise
    except FileNotFoundError:
        raise LoaderError(f"{address}: no such file; check the URL") from None
    except ImportError as error:
        raise LoaderError(f"{address}: {error}; pip install the missing package") from None
    except Exception as error:
        raise LoaderError(
            f"{address}: cannot be fetched ({type(error).__name__}: {error}); check the URL, the "
            "network, the credentials and the space in loader.scratch"
        ) from None
