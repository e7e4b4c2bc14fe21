"""One reader per data set's lists: from lists and folders to sources."""

from shards.annotations.plain import read_classes, read_csv, read_folder

__all__ = ["read_classes", "read_csv", "read_folder"]
