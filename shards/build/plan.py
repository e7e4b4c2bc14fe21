"""Which key goes into which tar: follows from the list alone, whatever the inputs hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shards.errors import ShardError, ShardUsageError
from shards.format.index import MAX_KEY
from shards.format.settings import ShardSettings, Source


def clean_key(name: str) -> str:
    """A key from a file's path: the suffix dropped, letters, digits, "-" and "_" kept."""
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).rstrip("_") or "video"


def unique_keys(names: Sequence[str]) -> list[str]:
    """One key for each path; where two would clash, or one is too long, a hash is appended."""
    cleaned = [clean_key(name) for name in names]
    seen: dict[str, int] = {}
    for key in cleaned:
        seen[key] = seen.get(key, 0) + 1
    return [
        key if seen[key] == 1 and len(key) <= MAX_KEY else _hashed(key, name)
        for key, name in zip(cleaned, names, strict=True)
    ]


def _hashed(key: str, name: str) -> str:
    return f"{key[: MAX_KEY - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def check_sources(sources: Sequence[Source], classes: Sequence[str]) -> None:
    """Raises ShardError for an empty list, a doubled or unfit key, a label outside the classes."""
    if not sources:
        raise ShardError("the list names no video: nothing to shard")
    seen: dict[str, Source] = {}
    for source in sources:
        if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}", source.key):
            raise ShardError(
                f"key {source.key!r} of {source.path}: use 1 to {MAX_KEY} letters, digits, - and _"
            )
        if source.key in seen:
            raise ShardError(
                f"key {source.key!r} twice in the list: {seen[source.key].path} and {source.path}"
            )
        seen[source.key] = source
        for label in source.all_labels:
            if not 0 <= label < len(classes):
                raise ShardError(
                    f"label {label} of {source.name or source.path} is outside the "
                    f"{len(classes)} classes (0 to {len(classes) - 1})"
                )


def tar_samples(count: int, settings: ShardSettings) -> int:
    """Samples in a tar: 64, less for short lists so that several workers have work."""
    return settings.tar_samples or min(max(count // 16, 8), 64)


@dataclass(frozen=True)
class TarPlan:
    """One tar to write: its number, its name and its sources in order."""

    number: int
    name: str
    sources: tuple[Source, ...]


def plan_tars(
    sources: Sequence[Source], split: str, settings: ShardSettings
) -> tuple[TarPlan, ...]:
    """Shuffle by a hash of (seed, key) and cut into tars: independent of the order of the list."""

    def rank(source: Source) -> bytes:
        return hashlib.blake2b(f"{settings.seed}:{source.key}".encode(), digest_size=16).digest()

    ordered = sorted(sources, key=rank)
    size = tar_samples(len(ordered), settings)
    parts = [tuple(ordered[a : a + size]) for a in range(0, len(ordered), size)]
    return tuple(TarPlan(n, f"{split}-{n:06d}.tar", part) for n, part in enumerate(parts))


def fingerprint(sources: Sequence[Source], settings: ShardSettings, classes: Sequence[str]) -> str:
    """SHA-256 of all that decides what the set holds: list, classes and settings."""
    digest = hashlib.sha256(repr((sorted(settings.recorded().items()), list(classes))).encode())
    for source in sorted(sources, key=lambda s: s.key):
        data = source.to_json()
        data.pop("path")
        digest.update(repr(sorted(data.items())).encode())
    return digest.hexdigest()


def parse_task(text: str) -> tuple[int, int]:
    """(I, N) of "I/N", I from 0. Raises ShardUsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise ShardUsageError(f"--task {text!r}: write I/N with 0 <= I < N, such as 0/8 to 7/8")
    return int(match[1]), int(match[2])


def check_split(name: str) -> str:
    """The split's name, if it can be a folder's. Raises ShardUsageError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name):
        raise ShardUsageError(f"split {name!r}: use letters, digits, - and _")
    return name
