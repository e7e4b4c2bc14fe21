"""The shard format: write, index, read, verify. Knows video files and tars, not torch."""

from shards.build import Report, build_split
from shards.errors import ShardError, ShardUsageError
from shards.index import Split, open_split
from shards.settings import ShardSettings, Source

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
