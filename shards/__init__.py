"""The shard format: write, index, read and verify sets of videos in tars.

`open_split(root, name)` opens a split for reading and `build_split(...)` makes one. Names of the
writer are imported when they are first used, so that a reader loads neither PyAV nor the worker
pool.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shards.errors import ShardError, ShardUsageError
from shards.format.index import Split, open_split

if TYPE_CHECKING:
    from shards.build.split import Report, build_split
    from shards.format.settings import ShardSettings, Source

__all__ = [
    "Report",
    "ShardError",
    "ShardSettings",
    "ShardUsageError",
    "Source",
    "Split",
    "build_split",
    "open_split",
]

_MODULES = {
    "Report": "build.split",
    "build_split": "build.split",
    "ShardSettings": "format.settings",
    "Source": "format.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'shards' has no attribute {name!r}")
    return getattr(import_module(f"shards.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
