"""The manifest of a finished split: read, written and checked against the format version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsanet.errors import printable
from dsanet.limits import find_limit
from shards.errors import ShardError
from shards.format.files import read_regular, write_atomic
from shards.format.manifest_schema import MAX_BYTES, find_schema_fault

FORMAT = "dsanet-shards"
FORMAT_VERSION = 2
MAX_VERSION = 9999
MANIFEST = "manifest.json"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_atomic` does. Raises ShardError if that fails."""
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise ShardError(find_limit(error) or f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, data: Any) -> None:
    """Write an object as JSON, atomically. Raises ShardError if that fails."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of a finished split; see `find_schema_fault`.

    Raises:
        ShardError: if it is missing or damaged.
    """
    path, remedy = folder / MANIFEST, f"run tools/shard.py reindex {folder}"
    try:
        content = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise ShardError(_explain_missing_split(folder)) from None
    except OSError as error:
        raise ShardError(f"{path} is damaged ({error.strerror}); {remedy}") from None
    return parse_manifest(content, path, remedy)


def parse_manifest(content: bytes, path: Path | str, remedy: str) -> dict[str, Any]:
    """Parse and check the content of a manifest.

    path, remedy: where it is from, and what a user can do where it is damaged, for messages.

    Raises:
        ShardError: if it is damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path} is damaged ({printable(error, 200)}); {remedy}") from None
    if not isinstance(manifest, dict):
        raise ShardError(f"{path} is damaged: it is not a JSON object; {remedy}")
    check_version(manifest, path)
    if fault := find_schema_fault(manifest):
        raise ShardError(f"{path} is damaged: {fault}; {remedy}")
    return manifest


def check_version(manifest: dict[str, Any], path: Path | str) -> None:
    """Raise ShardError for a format that this version of the project cannot read."""
    if manifest.get("format") != FORMAT:
        raise ShardError(f"{path} is not the manifest of a shard set")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        raise ShardError(
            f"{path}: the format version is missing; rebuild the set with tools/shard.py"
        )
    if version > FORMAT_VERSION:
        raise ShardError(
            f"{path} has format version {version}, but this version of the project reads up to "
            f"{FORMAT_VERSION}; update the project, or rebuild the set with tools/shard.py"
        )


def _explain_missing_split(folder: Path) -> str:
    root = folder.parent
    if not root.is_dir():
        return f"{root}: no such folder; make a shard set with tools/shard.py --out {root}"
    if (folder / ".build").is_dir():
        return (
            f"{folder}: the split is not finished; run the same tools/shard.py command again, or "
            f"tools/shard.py merge {folder}"
        )
    if any(folder.glob("*.tar")):
        return f"{folder}: tars but no manifest; run tools/shard.py reindex {folder}"
    if (root / MANIFEST).is_file():
        return f"{root} is a split, not a shard set; give the folder above it, {root.parent}"
    splits = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    content = f"it has {', '.join(splits)}" if splits else "it has no split at all"
    return f"{root}: no split {folder.name!r}, {content}; make it with tools/shard.py"


def find_splits(path: Path) -> list[Path]:
    """Return the split folders of a shard set, or `path` itself if it is a split.

    Raises ShardError if there is none.
    """

    def is_split(folder: Path) -> bool:
        return (folder / MANIFEST).is_file() or any(folder.glob("*.tar"))

    if not path.is_dir():
        raise ShardError(f"{path}: no such folder")
    if is_split(path):
        return [path]
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    splits = [f for f in folders if is_split(f) or (f / ".build").is_dir()]
    if not splits:
        raise ShardError(f"{path} contains no split of a shard set")
    return splits


def read_set_classes(root: Path, except_split: str = "") -> tuple[str, tuple[str, ...]]:
    """Return a finished split other than `except_split` that has classes, and their names.

    "" and () if there is none. Raises ShardError for a damaged manifest.
    """
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        if path.parent.name != except_split and (names := read_manifest(path.parent)["classes"]):
            return path.parent.name, tuple(names)
    return "", ()
