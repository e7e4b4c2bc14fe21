"""Reads CSV files, with or without a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.annotations.options import DELIMITERS, ListOptions
from shards.annotations.text import BLANK, Place, quote, read_text
from shards.errors import ShardError


@dataclass(frozen=True)
class Row:
    """A row of a CSV file.

    fields: its values by the names of the columns; a column that the row or the file lacks is not
        there.
    """

    fields: dict[str, str]
    place: Place

    def __getitem__(self, column: str) -> str:
        return self.fields.get(column, "")


def read_table(
    path: Path,
    columns: Sequence[str],
    options: ListOptions = ListOptions(),  # noqa: B008  (frozen)
) -> list[Row]:
    """Return the rows of a CSV file that are not blank.

    columns: those that it must have.
    options: its delimiter, and the names of its columns if it has no header. Names in a header
        may have any case.

    Raises:
        ShardError: if it is not CSV, or lacks one of `columns`.
    """
    records = list(read_records(path, DELIMITERS[options.delimiter]))
    header = list(options.columns)
    if not header and records:
        header = [name.lower() for name in records.pop(0)[1]]
    _check_header(path, header, columns, given=bool(options.columns))
    if not records:
        raise ShardError(f"the list {path} has no line after its header")
    return [_to_row(path, number, record, header) for number, record in records]


def read_records(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the fields of each record that is not blank.

    Raises:
        ShardError: if the file is not CSV.
    """
    # Python's reader ends records at line feeds and carriage returns alone, as `read_lines` does.
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""), delimiter=delimiter, skipinitialspace=True
    )
    while True:
        number = reader.line_num + 1
        try:
            record = [field.strip(BLANK) for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ShardError(f"{path}, line {number}: the list is not CSV: {error}") from None
        if delimiter == " ":
            record = [field for field in record if field]
        if any(record):
            yield number, record


def _check_header(path: Path, header: list[str], columns: Sequence[str], given: bool) -> None:
    if not header:
        raise ShardError(f"{path}: the list is empty")
    missing = [column for column in columns if column not in header]
    found = quote(",".join(header))
    if missing and given:
        raise ShardError(f"--columns {found} has no {missing[0]}; a list needs {','.join(columns)}")
    if missing:
        other = next((n for n, d in DELIMITERS.items() if n != "comma" and d in header[0]), "")
        remedy = (
            f"; if its fields are divided by a {other}, give --delimiter {other}" if other else ""
        )
        raise ShardError(
            f"{path}, line 1: the header has no column {missing[0]}, it is {found}; name the "
            f"columns {','.join(columns)} there, or, if this is no header, give "
            f"--columns {','.join(columns)} in their order{remedy}"
        )
    if len(set(header)) < len(header):
        raise ShardError(f"{path}, line 1: the header {found} has a column twice")


def _to_row(path: Path, number: int, record: list[str], header: list[str]) -> Row:
    if any(record[len(header) :]):
        raise ShardError(
            f"{path}, line {number}: {len(record)} fields for the {len(header)} columns "
            f"{quote(','.join(header))}; a field that contains the delimiter needs double quotes"
        )
    return Row(dict(zip(header, record, strict=False)), Place(path, number))
