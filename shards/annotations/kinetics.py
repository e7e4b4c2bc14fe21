"""Reads the lists of Kinetics-400, 600 and 700, and of Mini-Kinetics-200."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.annotations.labels import Classes, label_warnings
from shards.annotations.listing import Listing, read_segment
from shards.annotations.options import ListOptions
from shards.annotations.table import read_records, read_table
from shards.annotations.text import Place, quote
from shards.annotations.video_folder import VideoFolder, normalise_class_name
from shards.build.plan import unique_keys
from shards.errors import ShardError
from shards.format.settings import Source

COLUMNS = ("youtube_id", "time_start", "time_end")
# Of the lists without a header, such as train.txt of Kinetics-600.
HEADERLESS = ("label", *COLUMNS, "split", "is_cc")
MINI_CLASSES = 200
VIDEO_ID = re.compile(r"[A-Za-z0-9_-]+")
TIMES = ("time_start", "time_end")


@dataclass(frozen=True)
class Clip:
    """A row of a list: a clip of a YouTube video, times in seconds; label "" for none."""

    video: str
    start: float
    end: float
    label: str
    raw_label: str
    split: str
    place: Place

    @property
    def key_name(self) -> str:
        """What the key of its sample is made of."""
        return f"{self.video}_{int(self.start):06d}"


def _read_clips(path: Path, options: ListOptions) -> list[Clip]:
    """Return the rows of a list. Raises ShardError for a wrong row, or one that is there twice."""
    _, first = next(read_records(path), (0, []))
    if _is_row(first):
        options = replace(options, columns=HEADERLESS[: max(len(first), 4)])
    clips = []
    for row in read_table(path, COLUMNS, options):
        start, end = read_segment(row["time_start"], row["time_end"], row.place, TIMES)
        video, raw = row["youtube_id"], _without_quotes(row["label"])
        if not VIDEO_ID.fullmatch(video):
            raise ShardError(
                f"{row.place}: {quote(video)} is not the id of a video; spreadsheet programs "
                "destroy ids that begin with - or =: use the published file"
            )
        label = normalise_class_name(raw)
        clips.append(Clip(video, start, end, label, raw, row["split"] or "train", row.place))
    _check_clips(clips)
    return clips


def _is_row(fields: Sequence[str]) -> bool:
    """Whether fields are a clip and not a header."""
    return 4 <= len(fields) <= len(HEADERLESS) and all(
        re.fullmatch(r"\d+(\.\d+)?", text) for text in fields[2:4]
    )


def _without_quotes(label: str) -> str:
    quoted = len(label) > 1 and label[0] == label[-1] and label[0] in "\"'"
    return label[1:-1] if quoted else label


def _check_clips(clips: Sequence[Clip]) -> None:
    seen: dict[tuple[str, int], Clip] = {}
    labelled = any(clip.label for clip in clips)
    for clip in clips:
        if labelled and not clip.label:
            raise ShardError(
                f"{clip.place}: no label, though other lines have one; add it or delete the line"
            )
        first = seen.setdefault((clip.video, int(clip.start)), clip)
        if first is not clip:
            labels = f", with the labels {quote(first.label)} and {quote(clip.label)}"
            raise ShardError(
                f"{first.place.with_other(clip.place)}: the clip of {clip.video} at "
                f"{clip.start:g} s is listed twice{labels if first.label != clip.label else ''}; "
                "delete one of them"
            )


def _to_source(folder: VideoFolder, clip: Clip, label: int, key: str) -> Source:
    """Return the trimmed clip if it exists, else the whole video, to be cut if it is longer."""
    name = f"{clip.video}_{int(clip.start):06d}_{int(clip.end):06d}"
    if found := folder.find(name, clip.label, clip.place):
        return Source(found[0], label, key, name=found[1])
    if found := folder.find(clip.video, clip.label, clip.place):
        source = Source(found[0], label, key, name=found[1])
        return replace(source, start=clip.start, end=clip.end, if_longer=True)
    class_folder = clip.label.replace("/", "_") or "."
    path, _ = folder.locate(f"{class_folder}/{name}.mp4", clip.place)
    return Source(path, label, key, name=name)


def _make_listing(
    folder: VideoFolder, clips: Sequence[Clip], names: Sequence[str], given: Classes, path: Path
) -> Listing:
    classes = Classes([normalise_class_name(name) for name in names], given.source)
    if len(classes.numbers) < len(names):
        raise ShardError(
            f"two of the {len(names)} class names{classes.origin} are the same but for capitals or "
            "underscores, which do not count in Kinetics; correct them"
        )
    labels = [classes.number(clip.label, clip.place) if clip.label else -1 for clip in clips]
    keys = unique_keys([clip.key_name for clip in clips])
    sources = [
        _to_source(folder, clip, label, key)
        for clip, label, key in zip(clips, labels, keys, strict=True)
    ]
    used = {label for label in labels if label >= 0}
    warnings = label_warnings(used, names, path, given=True) + _merged(clips, path)
    return Listing(sources, tuple(names), (*folder.warnings, *warnings))


def _merged(clips: Sequence[Clip], path: Path) -> list[str]:
    """Return a warning for each class whose name is spelled in several ways."""
    spellings: dict[str, str] = {}
    found = {}
    for clip in clips:
        first = spellings.setdefault(clip.label, clip.raw_label)
        if first != clip.raw_label:
            found[clip.label] = (
                f"{path}: {quote(first)} and {quote(clip.raw_label)} are one class, "
                f"{quote(clip.label)}: capitals and underscores do not count"
            )
    return list(found.values())


def read_kinetics(
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions
) -> Listing:
    """Read a list of Kinetics; without `classes` they are its labels in alphabetical order.

    The columns are those of its header, or without one label, youtube_id, time_start, time_end,
    split. The name of a file is `<id>_<start6>_<end6>` or `<id>` with any video suffix, in any
    folder.

    Raises:
        ShardError: if the list does not have the columns of Kinetics, or an unknown class.
    """
    clips = _read_clips(path, options)
    names = classes.names or sorted({clip.label for clip in clips if clip.label})
    return _make_listing(folder, clips, names, classes, path)


def most_frequent_classes(labels: Sequence[str], count: int = MINI_CLASSES) -> tuple[str, ...]:
    """Return the `count` labels with the most videos (ties by name), in alphabetical order."""
    ranked = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    return tuple(sorted(name for name, _ in ranked[:count]))


def read_mini_kinetics(
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions
) -> Listing:
    """Read the rows of a Kinetics-400 list that belong to the 200 classes of Mini-Kinetics.

    Without `classes` they are the 200 with the most videos in the list, which must then be the
    training list.

    Raises:
        ShardError: if `classes` are needed, or as `read_kinetics` does.
    """
    clips = _read_clips(path, options)
    names: Sequence[str] = classes.names
    if not names:
        if {clip.split for clip in clips} - {"train"}:
            raise ShardError(
                f"{path} is not a training list, which the 200 classes follow from: shard the "
                "training split into the same --out first, or give --classes"
            )
        names = most_frequent_classes([clip.label for clip in clips])
    wanted = {normalise_class_name(name) for name in names}
    clips = [clip for clip in clips if clip.label in wanted]
    return _make_listing(folder, clips, names, classes, path)
