"""The manifest: what a finished split says of itself, and whether this version can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shards.errors import ShardError

FORMAT = "dsanet-shards"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"


def write_text(path: Path, text: str) -> None:
    """Write a file so that readers see the old one or the whole new one. Raises ShardError."""
    partial = path.with_name(f".{path.name}.part")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ShardError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, data: Any) -> None:
    """Write JSON as `write_text` does. Raises ShardError."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished split. Raises ShardError saying what is missing and what to do."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ShardError(_why_missing(folder)) from None
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} is damaged ({error}): tools/shard.py reindex {folder}") from None
    if not isinstance(manifest, dict):
        raise ShardError(f"{path} is damaged: tools/shard.py reindex {folder}")
    check_version(manifest, path)
    if not _has_all(manifest):
        raise ShardError(f"{path} lacks parts of a manifest: tools/shard.py reindex {folder}")
    return manifest


def _has_all(manifest: dict[str, Any]) -> bool:
    """Whether what every reader looks up is there."""
    try:
        numbers = [manifest["counts"][name] for name in ("samples", "frames")]
        numbers += [tar[name] for tar in manifest["tars"] for name in ("size", "samples")]
        texts = [tar[name] for tar in manifest["tars"] for name in ("name", "sha256")]
        texts += [manifest["settings"]["codec"], *manifest["classes"]]
        numbers += [manifest["settings"]["gop"]]
        return (
            all(isinstance(n, int) for n in numbers)
            and all(isinstance(t, str) for t in texts)
            and isinstance(manifest["counts"]["sources"], dict)
            and isinstance(manifest["classes"], list)
        )
    except (KeyError, TypeError):
        return False


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
    if (root / MANIFEST).is_file():
        return f"{root} is a split itself: give the folder above, {root.parent}"
    splits = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    there = f"there is {', '.join(splits)}" if splits else "there is no split in it"
    return f"no split {folder.name!r} in {root}; {there}: make it with tools/shard.py"


def find_splits(path: Path) -> list[Path]:
    """The split folders of a shard set, or the one that `path` is. Raises ShardError for none."""

    def is_split(folder: Path) -> bool:
        return (folder / MANIFEST).is_file() or any(folder.glob("*.tar"))

    if not path.is_dir():
        raise ShardError(f"no folder {path}")
    found = [path] if is_split(path) else sorted(f for f in path.iterdir() if f.is_dir())
    found = [folder for folder in found if is_split(folder) or (folder / ".build").is_dir()]
    if not found:
        raise ShardError(f"{path} holds no split of a shard set")
    return found


def known_classes(root: Path, but: str = "") -> tuple[str, ...]:
    """The classes of the splits of `root` that are finished, without split `but`; () for none."""
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        if path.parent.name != but:
            return tuple(read_manifest(path.parent)["classes"])
    return ()
