"""Reads the lists of each supported data set into sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from dsanet.errors import require
from shards.annotations.activitynet import read_activitynet
from shards.annotations.hmdb51 import read_hmdb51
from shards.annotations.kinetics import read_kinetics, read_mini_kinetics
from shards.annotations.labels import Classes, read_classes
from shards.annotations.listing import Listing
from shards.annotations.mmaction2 import read_mmaction2
from shards.annotations.options import ListOptions
from shards.annotations.plain import read_csv, read_folder
from shards.annotations.something import read_something_v1, read_something_v2
from shards.annotations.ucf101 import read_ucf101
from shards.annotations.video_folder import VideoFolder
from shards.errors import ShardUsageError

__all__ = ["DATASETS", "ListOptions", "Listing", "read_classes", "read_list"]

READERS = {
    "folder": read_folder,
    "csv": read_csv,
    "kinetics400": read_kinetics,
    "kinetics600": read_kinetics,
    "kinetics700": read_kinetics,
    "mini-kinetics200": read_mini_kinetics,
    "somethingv1": read_something_v1,
    "somethingv2": read_something_v2,
    "ucf101": read_ucf101,
}
# The readers that need the name of the split: one file has several.
SPLIT_READERS = {
    "hmdb51": read_hmdb51,
    "activitynet": read_activitynet,
    "mmaction2": read_mmaction2,
}
Dataset = Literal[
    "folder", "csv", "kinetics400", "kinetics600", "kinetics700", "mini-kinetics200",
    "somethingv1", "somethingv2", "ucf101", "hmdb51", "activitynet", "mmaction2",
]  # fmt: skip
DATASETS: tuple[Dataset, ...] = get_args(Dataset)


def read_list(
    dataset: Dataset,
    videos: Path,
    path: Path,
    classes: Sequence[str] = (),
    *,
    split: str = "train",
    segments: str = "whole",
    options: ListOptions = ListOptions(),  # noqa: B008  (frozen)
) -> Listing:
    """Read the list `path` of a data set whose videos are in the folder `videos`.

    classes: class names in the order of their labels; () takes them from the list.
    split: activitynet, hmdb51, mmaction2: which videos of the file.
    segments: activitynet: see `read_activitynet`; the same as `options.segments`.

    Raises:
        ShardError: if the list cannot be read.
        ShardUsageError: for an option that the data set has no use for.
    """
    known = ", ".join(DATASETS)
    require(dataset in DATASETS, "dataset", f"be one of {known}", dataset, ShardUsageError)
    if segments != "whole":
        options = replace(options, segments=segments)
    options.check_dataset(dataset)
    folder = VideoFolder(videos, options.allow_outside)
    given = Classes(classes, options.classes_from)
    if dataset in SPLIT_READERS:
        return SPLIT_READERS[dataset](folder, path, given, options, split)
    return READERS[dataset](folder, path, given, options)
