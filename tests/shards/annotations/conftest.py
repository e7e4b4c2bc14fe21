"""Small folders of empty files, and a short way to read a list of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shards.annotations import Listing, ListOptions, read_list


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """An empty folder for videos, beside which a test writes its lists."""
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture
def read(tmp_path: Path, videos: Path) -> Callable[..., Listing]:
    """A function of (data set, text of the list, file name) and the options of the list."""

    def read_text(
        dataset: str, text: str | bytes, name: str = "list.txt", *,
        classes: tuple[str, ...] = (), split: str = "train", **options: object,
    ) -> Listing:  # fmt: skip
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_list(
            dataset, videos, path, classes, split=split, options=ListOptions(**options)
        )

    return read_text
