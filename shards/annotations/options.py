"""The settings of a list that do not follow from the list itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction

from dsanet.errors import require
from shards.errors import ShardUsageError

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "space": " "}
# The data sets whose lists have a use for an option; the other options are for every data set.
TABLES = ("csv", "kinetics400", "kinetics600", "kinetics700", "mini-kinetics200")
USERS = {
    "segments": ("activitynet",),
    "fold": ("hmdb51",),
    "delimiter": TABLES,
    "columns": TABLES,
    "unlabelled": ("folder", "csv", "mmaction2"),
    "multi_label": ("mmaction2",),
}
FLAGS = ("unlabelled", "multi_label")


@dataclass(frozen=True)
class ListOptions:
    """How a list is read.

    Attributes:
        segments: activitynet: see `read_activitynet`.
        fold: hmdb51: which of its three divisions into training and test videos.
        delimiter: csv, Kinetics: comma, tab, semicolon or space.
        columns: csv, Kinetics: the names of the columns, for a file without a header; () reads
            the header.
        unlabelled: folder, csv, mmaction2: the list has no labels; its videos are to be scored.
        multi_label: mmaction2: a line may have several labels.
        allow_outside: whether the list may name videos outside the folder of videos.
        folder_fps: frame rate of videos that are folders of frames; "" for the data set's.
        classes_from: where the classes come from, for messages.

    Raises:
        ShardUsageError: if a value is out of range.
    """

    segments: str = "whole"
    fold: int = 1
    delimiter: str = "comma"
    columns: tuple[str, ...] = ()
    unlabelled: bool = False
    multi_label: bool = False
    allow_outside: bool = False
    folder_fps: str = ""
    classes_from: str = ""

    def __post_init__(self) -> None:
        self._require(self.fold in (1, 2, 3), "fold", "be 1, 2 or 3")
        names = ", ".join(DELIMITERS)
        self._require(self.delimiter in DELIMITERS, "delimiter", f"be one of {names}")
        distinct = len(set(self.columns)) == len(self.columns)
        self._require(distinct and "" not in self.columns, "columns", "be different names")
        valid = not self.folder_fps or _is_rate(self.folder_fps)
        self._require(valid, "folder_fps", "be a rate above 0 and up to 240")

    def _require(self, condition: bool, name: str, must: str) -> None:
        require(condition, name, must, getattr(self, name), ShardUsageError)

    def check_dataset(self, dataset: str) -> None:
        """Raise ShardUsageError if an option is set that the lists of `dataset` have no use for."""
        for field in fields(self):
            users = USERS.get(field.name, (dataset,))
            value = getattr(self, field.name)
            if dataset not in users and value != field.default:
                known = " and ".join([", ".join(users[:-1]), users[-1]][len(users) == 1 :])
                must = f"be {'left out' if field.name in FLAGS else field.default or 'left out'}"
                require(
                    False, field.name, f"{must} for every data set except {known}",
                    value, ShardUsageError,
                )  # fmt: skip


def _is_rate(text: str) -> bool:
    try:
        return 0 < Fraction(text) <= 240
    except (ValueError, ZeroDivisionError):
        return False
