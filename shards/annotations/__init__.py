"""Reads the lists of each supported data set into sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from dsanet.errors import require
from shards.annotations.activitynet import read_activitynet
from shards.annotations.kinetics import read_kinetics, read_mini_kinetics
from shards.annotations.plain import Listing, read_classes, read_csv, read_folder
from shards.annotations.something import read_something
from shards.errors import ShardUsageError

__all__ = ["DATASETS", "Listing", "read_classes", "read_list"]

READERS = {
    "folder": read_folder,
    "csv": read_csv,
    "kinetics400": read_kinetics,
    "mini-kinetics200": read_mini_kinetics,
    "somethingv1": read_something,
}
Dataset = Literal["folder", "csv", "kinetics400", "mini-kinetics200", "somethingv1", "activitynet"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)


def read_list(
    dataset: Dataset,
    videos: Path,
    path: Path,
    classes: Sequence[str] = (),
    *,
    split: str = "train",
    segments: str = "whole",
) -> Listing:
    """Read the list `path` of a data set whose videos are in the folder `videos`.

    classes: class names in the order of their labels; () takes them from the list.
    split, segments: see `read_activitynet`; the other lists have neither.

    Raises:
        ShardError: if the list cannot be read.
    """
    known = ", ".join(DATASETS)
    require(dataset in DATASETS, "dataset", f"be one of {known}", dataset, ShardUsageError)
    if dataset == "activitynet":
        return read_activitynet(videos, path, classes, split=split, segments=segments)
    must = "be whole for every data set except activitynet"
    require(segments == "whole", "segments", must, segments, ShardUsageError)
    return READERS[dataset](videos, path, classes)
