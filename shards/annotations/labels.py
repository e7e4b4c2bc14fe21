"""Class names, and the numbers that labels have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from shards.annotations.text import Place, quote, read_json, read_lines
from shards.errors import ShardError

MAX_DIGITS = 9
MANY_CLASSES, FEW_USED = 100, 0.1
NUMBERED = re.compile(r"(\d+)[\s,;:.]+\S")


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names: one per line in the order of their labels, or a JSON file.

    The JSON file is an array of names, or an object with the number of each name, such as
    Something-Something's `labels.json`.

    Raises:
        ShardError: for an empty file, a name that appears twice, or numbers that leave gaps.
    """
    if path.suffix.lower() == ".json":
        return _read_json_classes(path)
    lines = read_lines(path)
    if not lines:
        raise ShardError(f"{path} contains no class name")
    first: dict[str, Place] = {}
    for line in lines:
        if line.text in first:
            raise ShardError(
                f"{first[line.text].with_other(line.place)}: the class {quote(line.text)} is there "
                "twice; the order of the lines gives the labels"
            )
        first[line.text] = line.place
    return tuple(first)


def _read_json_classes(path: Path) -> tuple[str, ...]:
    data = read_json(path)
    remedy = 'it must be an array of names, or an object such as {"name": 0, "other name": 1}'
    if isinstance(data, dict):
        numbers = {name: _whole_number(number) for name, number in data.items()}
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ShardError(f"{path}: the classes are not numbered 0, 1, 2, ...; {remedy}")
        data = sorted(numbers, key=lambda name: numbers[name])
    if not isinstance(data, list) or not data or not all(isinstance(n, str) and n for n in data):
        raise ShardError(f"{path} has no class names; {remedy}")
    if len(set(data)) < len(data):
        raise ShardError(f"{path}: a class is there twice")
    return tuple(data)


def _whole_number(value: object) -> int:
    """Return a number that JSON has as a number or as text; -1 for anything else."""
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return int(text) if is_class_number(text) else -1


def is_class_number(text: str) -> bool:
    """Whether a text is a whole number from 0, of at most nine digits."""
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def without_numbers(names: Sequence[str]) -> tuple[str, ...]:
    """Return "1 Archery", "2 Biking" as "Archery", "Biking", and all other names as they are."""
    if not _are_numbered(names):
        return tuple(names)
    return tuple(name.split(maxsplit=1)[1] for name in names)


def _are_numbered(names: Sequence[str]) -> bool:
    matches = [NUMBERED.match(name) for name in names]
    numbers = [int(match[1][:MAX_DIGITS]) for match in matches if match]
    return len(numbers) == len(names) > 1 and numbers in (
        list(range(len(names))),
        list(range(1, len(names) + 1)),
    )


class Classes:
    """The class names that are given, which turn a label into a number; none may be given.

    source: where the names come from, for messages.
    """

    def __init__(self, names: Sequence[str], source: str = "") -> None:
        self.names = tuple(names)
        self.source = source
        self.origin = f", which come from {source}" if source else ""
        self.numbers: Mapping[str, int] = {name: i for i, name in enumerate(self.names)}

    def number(self, text: str, place: Place) -> int:
        """Return the label that `text` means: the name of a class, or a number.

        Raises:
            ShardError: if it is neither, or not below the number of classes.
        """
        if text in self.numbers:
            return self.numbers[text]
        if not is_class_number(text):
            raise ShardError(f"{place}: the label {quote(text)} is {self._why_not(text)}")
        label = int(text)
        if self.names and label >= len(self.names):
            from_one = "; labels count from 0" if label == len(self.names) else ""
            raise ShardError(
                f"{place}: label {label} must be less than {len(self.names)}, the number of "
                f"classes{self.origin}{from_one}; correct the list, or shard every split with the "
                "same --classes FILE, which names all of them"
            )
        return label

    def _why_not(self, text: str) -> str:
        if not text:
            return "empty; a list without labels needs --unlabelled"
        if self.names:
            lower = {name.lower(): name for name in self.names}
            close = difflib.get_close_matches(text[:200].lower(), lower, 1)
            hint = f"; did you mean {quote(lower[close[0]])}?" if close else ""
            return f"not one of the {len(self.names)} classes{self.origin}{hint}"
        if re.fullmatch(r"\d+\.0+", text):
            return f"not a whole number; write it as {text.partition('.')[0]}"
        if re.fullmatch(r"\d{10,}|-\d+", text):
            return "not a class number (0, 1, 2, ...); a list without labels needs --unlabelled"
        return "not a number; to use names, give --classes FILE"


def infer_names(labels: Mapping[int, Place]) -> tuple[str, ...]:
    """Return class names for a list without any: "0", "1", ... up to its largest label.

    labels: the place of the first use of each label.

    Raises:
        ShardError: if so few of the classes are used that the labels cannot be class numbers.
    """
    count = max(labels, default=-1) + 1
    if count > MANY_CLASSES and len(labels) < FEW_USED * count:
        raise ShardError(
            f"{labels[count - 1]}: label {count - 1} would make {count} classes, of which the list "
            f"uses {len(labels)}: it is not a class number, more likely a date, an id or a number "
            "of frames; correct the list, or give --classes FILE with the name of every class"
        )
    return tuple(str(number) for number in range(count))


def label_warnings(labels: set[int], names: Sequence[str], path: Path, given: bool) -> list[str]:
    """Return what is odd, though possible, about the labels of a list.

    given: whether the class names were given; else they are the numbers.
    """
    found = []
    if _are_numbered(names):
        found.append(
            f"every class name begins with a number, such as {quote(names[0])}; if that is not part"
            " of the name, take the numbers out of the file of class names"
        )
    unused = [number for number in range(len(names)) if number not in labels]
    if not labels or not unused:
        return found
    if unused == [0]:
        return [*found, f"{path}: no video has label 0; if its labels begin at 1, subtract 1"]
    shown = ", ".join(quote(names[n]) if given else str(n) for n in unused[:5])
    more = ", ..." if len(unused) > 5 else ""
    return [*found, f"{path}: {len(unused)} of {len(names)} classes have no video ({shown}{more}); "
            "if that is not meant, the list is incomplete or its labels are wrong"]  # fmt: skip
