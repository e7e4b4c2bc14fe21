"""Checks that a manifest has the entries that readers use, with sane types and values.

A manifest may come from a stranger: a name of a tar in it becomes the name of a file that is
written, and its numbers become sizes in memory. Keys that are not listed here are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dsanet.errors import printable
from shards.format.settings import CODECS

MAX_BYTES = 64 << 20  # of a manifest; that of 30,000 tars has about 8 MB
MAX_DEPTH = 8  # lists and objects inside each other
MAX_ROWS = 1 << 40  # samples or frames
MAX_TAR = 1 << 50  # bytes of a tar
MAX_TARS = 10_000_000
MAX_CLASSES = 1_000_000
MAX_NAME = 1000  # characters of a class name
MAX_GOP = 255  # frames
TAR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.tar")
SHA256 = re.compile(r"[0-9a-f]{64}")


def find_schema_fault(manifest: dict[str, Any]) -> str | None:
    """What is wrong with a manifest, None if nothing is: "tars[0].size must ..., got ..."."""
    return next(_faults(manifest), None)


def _faults(manifest: dict[str, Any]) -> Iterator[str]:
    if _depth_exceeds(manifest, MAX_DEPTH):
        yield f"it is nested more than {MAX_DEPTH} levels deep"
    yield from _classes_faults(manifest.get("classes"))
    yield from _settings_faults(manifest.get("settings"))
    yield from _counts_faults(manifest.get("counts"))
    yield from _tars_faults(manifest.get("tars"))


def _classes_faults(classes: Any) -> Iterator[str]:
    if not isinstance(classes, list) or len(classes) > MAX_CLASSES:
        yield _must("classes", f"be a list of at most {MAX_CLASSES} names", classes)
        return
    for number, name in enumerate(classes):
        if not isinstance(name, str) or len(name) > MAX_NAME or not _is_unicode(name):
            must = f"be text of at most {MAX_NAME} characters"
            yield _must(f"classes[{number}]", must, name)


def _settings_faults(settings: Any) -> Iterator[str]:
    if not isinstance(settings, dict):
        yield _must("settings", "be an object", settings)
        return
    if settings.get("codec") not in CODECS:
        yield _must("settings.codec", f"be one of {', '.join(CODECS)}", settings.get("codec"))
    if not _is_number(settings.get("gop"), 1, MAX_GOP):
        must = f"be a whole number from 1 to {MAX_GOP}"
        yield _must("settings.gop", must, settings.get("gop"))


def _counts_faults(counts: Any) -> Iterator[str]:
    if not isinstance(counts, dict):
        yield _must("counts", "be an object", counts)
        return
    sources = counts.get("sources")
    if not isinstance(sources, dict):
        yield _must("counts.sources", "be an object", sources)
        return
    numbers = {f"counts.{name}": counts.get(name) for name in ("samples", "frames")}
    numbers |= {f"counts.sources.{printable(name, 40)}": count for name, count in sources.items()}
    for name, value in numbers.items():
        if not _is_number(value, 0, MAX_ROWS):
            yield _must(name, f"be a whole number from 0 to {MAX_ROWS}", value)


def _tars_faults(tars: Any) -> Iterator[str]:
    if not isinstance(tars, list) or len(tars) > MAX_TARS:
        yield _must("tars", f"be a list of at most {MAX_TARS} objects", tars)
        return
    names = set()
    for number, tar in enumerate(tars):
        place = f"tars[{number}]"
        if not isinstance(tar, dict):
            yield _must(place, "be an object", tar)
            return
        name, sha256 = tar.get("name"), tar.get("sha256")
        if not isinstance(name, str) or not TAR_NAME.fullmatch(name):
            must = "be a plain file name of letters, digits, ., - and _ that ends in .tar"
            yield _must(f"{place}.name", must, name)
        elif name in names:
            yield _must(f"{place}.name", "not be in the list twice", name)
        names.add(name)
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            yield _must(f"{place}.sha256", "be 64 hexadecimal digits", sha256)
        for key, most in (("size", MAX_TAR), ("samples", MAX_ROWS)):
            if not _is_number(tar.get(key), 0, most):
                must = f"be a whole number from 0 to {most}"
                yield _must(f"{place}.{key}", must, tar.get(key))


def _must(name: str, must: str, value: Any) -> str:
    kind = type(value).__name__
    shown = kind if isinstance(value, (list, dict)) else printable(_shown(value), 100)
    return f"{name} must {must}, got {shown}"


def _shown(value: Any) -> str:
    """A value as text; whole numbers of thousands of digits have none."""
    try:
        return repr(value)
    except ValueError:
        return "a huge number"


def _is_number(value: Any, least: int, most: int) -> bool:
    """Whether a value is a whole number in a range; `true` and 1.0 are none."""
    return type(value) is int and least <= value <= most


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth_exceeds(value: Any, limit: int) -> bool:
    """Whether lists and objects are inside each other more than `limit` times."""
    level = [value]
    for _ in range(limit + 1):
        parts = (item.values() if isinstance(item, dict) else item for item in level)
        level = [v for part in parts for v in part if isinstance(v, (dict, list))]
        if not level:
            return False
    return True
