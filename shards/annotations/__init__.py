"""One reader per data set's lists: from lists and folders to sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.annotations.activitynet import read_activitynet
from shards.annotations.kinetics import read_kinetics, read_mini_kinetics
from shards.annotations.plain import Listing, read_classes, read_csv, read_folder
from shards.annotations.something import read_something
from shards.errors import ShardUsageError

__all__ = ["DATASETS", "Listing", "read_classes", "read_list"]

PLAIN = {
    "folder": read_folder,
    "csv": read_csv,
    "kinetics400": read_kinetics,
    "mini-kinetics200": read_mini_kinetics,
    "somethingv1": read_something,
}
DATASETS = (*PLAIN, "activitynet")


def read_list(
    dataset: str,
    videos: Path,
    path: Path,
    classes: Sequence[str] = (),
    *,
    split: str = "train",
    segments: str = "whole",
) -> Listing:
    """The sources and classes of a data set's list; `split` and `segments` are ActivityNet's.

    Raises ShardError for a list that cannot be understood.
    """
    if dataset == "activitynet":
        return read_activitynet(videos, path, classes, split=split, segments=segments)
    if segments != "whole":
        raise ShardUsageError(
            f"--segments {segments}: the lists of {dataset} know no segments, only activitynet's do"
        )
    return PLAIN[dataset](videos, path, classes)
