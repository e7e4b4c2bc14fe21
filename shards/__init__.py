"""The shard format: write, index, read, verify. Knows video files and tars, not torch."""

from shards.build.split import Report, build_split
from shards.errors import ShardError, ShardUsageError
from shards.format.index import Split, open_split
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
