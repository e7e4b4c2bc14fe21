"""Decides which key goes into which tar: from the list alone, never from the videos."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dsanet.errors import require
from shards.errors import ShardError, ShardUsageError
from shards.format.index import MAX_KEY
from shards.format.settings import ShardSettings, Source


def clean_key(name: str) -> str:
    """Make a key of a file's path: drop the suffix, keep letters, digits, "-" and "_"."""
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).rstrip("_") or "video"


def unique_keys(names: Sequence[str]) -> list[str]:
    """Make one key for each path; a hash is appended where two would be equal or one too long."""
    cleaned = [clean_key(name) for name in names]
    counts = Counter(cleaned)
    return [
        key if counts[key] == 1 and len(key) <= MAX_KEY else _hashed(key, name)
        for key, name in zip(cleaned, names, strict=True)
    ]


def _hashed(key: str, name: str) -> str:
    return f"{key[: MAX_KEY - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def check_sources(sources: Sequence[Source], classes: Sequence[str]) -> None:
    """Raise ShardError for an empty list, an invalid or duplicate key, an absolute name, or an
    unknown label."""
    if not sources:
        raise ShardError("the list is empty: there is nothing to shard")
    by_key: dict[str, Source] = {}
    for source in sources:
        if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}", source.key):
            raise ShardError(
                f"{str(source.path)[:300]}: key {source.key[:100]!r} is not 1 to {MAX_KEY} "
                "letters, digits, - and _"
            )
        if source.key in by_key:
            raise ShardError(
                f"key {source.key!r} is in the list twice: {by_key[source.key].path} and "
                f"{source.path}"
            )
        by_key[source.key] = source
        if source.name.startswith("/"):
            raise ShardError(f"{source.name}: the name of a source is stored and must be relative")
        for label in source.all_labels:
            if not 0 <= label < len(classes):
                raise ShardError(
                    f"{source.name or source.path}: label {label} must be less than "
                    f"{len(classes)}, the number of classes"
                )


def tar_samples(count: int, settings: ShardSettings) -> int:
    """Return the samples per tar: 64, fewer for a short list so that all workers have work."""
    return settings.tar_samples or min(max(count // 16, 8), 64)


@dataclass(frozen=True)
class TarPlan:
    """One tar to write: its number from 0, its file name, and its sources in order."""

    number: int
    name: str
    sources: tuple[Source, ...]


def plan_tars(
    sources: Sequence[Source], split: str, settings: ShardSettings
) -> tuple[TarPlan, ...]:
    """Shuffle by a hash of (seed, key) and cut into tars; the order of the list does not matter."""

    def rank(source: Source) -> bytes:
        return hashlib.blake2b(f"{settings.seed}:{source.key}".encode(), digest_size=16).digest()

    ordered = sorted(sources, key=rank)
    size = tar_samples(len(ordered), settings)
    parts = [tuple(ordered[a : a + size]) for a in range(0, len(ordered), size)]
    return tuple(TarPlan(n, f"{split}-{n:06d}.tar", part) for n, part in enumerate(parts))


def fingerprint(sources: Sequence[Source], settings: ShardSettings, classes: Sequence[str]) -> str:
    """Return a SHA-256 of what decides the content of the set: list, classes and settings."""
    digest = hashlib.sha256(repr((sorted(settings.recorded().items()), list(classes))).encode())
    for source in sorted(sources, key=lambda s: s.key):
        data = source.to_json()
        data.pop("path")
        digest.update(repr(sorted(data.items())).encode())
    return digest.hexdigest()


def parse_task(text: str) -> tuple[int, int]:
    """Return (I, N) of "I/N", the share I of N from 0. Raises ShardUsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    must = "be I/N with 0 <= I < N, such as 0/8 to 7/8"
    require(index < count, "task", must, text, ShardUsageError)
    return index, count


def check_split(name: str) -> str:
    """Return the name of a split. Raises ShardUsageError if it is not valid."""
    valid = re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) is not None
    require(valid, "split", "be 1 to 60 letters, digits, - and _", name, ShardUsageError)
    return name
