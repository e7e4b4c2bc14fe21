"""The manifest: what a finished split says of itself, and whether this version can read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.errors import ShardError

FORMAT = "dsanet-shards"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that readers see the old file or the whole new one. Raises ShardError."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
        partial.replace(path)
    except OSError as error:
        raise ShardError(f"cannot write {path}: {error.strerror}") from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished split. Raises ShardError saying what is missing and what to do."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ShardError(_why_missing(folder)) from None
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} is damaged ({error}): tools/shard.py reindex {folder}") from None
    check_version(manifest, path)
    return manifest


def check_version(manifest: dict[str, Any], path: Path) -> None:
    """Raises ShardError for a format this code does not know."""
    if manifest.get("format") != FORMAT:
        raise ShardError(f"{path} is not the manifest of a shard set")
    version = manifest.get("version")
    if not isinstance(version, int) or version < 1:
        raise ShardError(f"{path}: no format version; rebuild the set with tools/shard.py")
    if version > FORMAT_VERSION:
        raise ShardError(
            f"{path} has format version {version}, this installation reads up to "
            f"{FORMAT_VERSION}: update the project, or rebuild the set with this one"
        )


def _why_missing(folder: Path) -> str:
    root = folder.parent
    if not root.is_dir():
        return f"no folder {root}: make it with tools/shard.py --out {root}"
    if (folder / ".build").is_dir():
        return f"{folder} is not finished: run the same tools/shard.py command again (or merge)"
    if any(folder.glob("*.tar")):
        return f"{folder} has tars but no manifest: tools/shard.py reindex {folder}"
    splits = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    there = f"there is {', '.join(splits)}" if splits else "there is no split in it"
    return f"no split {folder.name!r} in {root}; {there}: make it with tools/shard.py"
