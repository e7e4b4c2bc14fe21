"""What is said where none of the videos of a list is there."""

from __future__ import annotations

import unicodedata

import pytest

from shards import ShardError, Source
from shards.build.missing import find_video_folder


def error(root, *names) -> str:
    with pytest.raises(ShardError) as caught:
        find_video_folder([Source(root / name, 0, f"k{i}", name=name)
                           for i, name in enumerate(names)])  # fmt: skip
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.mp4").write_bytes(b"")
    (tmp_path / "a" / unicodedata.normalize("NFD", "é.mp4")).write_bytes(b"")
    return tmp_path


def test_the_first_path_tried_is_named(root):
    text = error(root, "x/one.mp4", "y/two.mp4")
    assert (
        f"none of the 2 videos of the list is there, the first path tried is {root}/x/one" in text
    )


def test_a_folder_that_is_missing_is_named(root):
    text = error(root, "x/one.mp4")
    assert (
        f"{root}/x: the folder of videos does not exist, the first path tried is {root}/x/o" in text
    )


@pytest.mark.parametrize("name", ["A/One.MP4", "a/one", "a/one.MP4"])
def test_a_file_with_a_similar_name_is_named(root, name):
    (root / "A.txt").write_bytes(b"")
    assert f"where there is {root}/a/one.mp4" in error(root, name, "a/absent.mp4")


def test_another_unicode_normalisation_is_named(root):
    name = unicodedata.normalize("NFC", "a/é.mp4")
    assert f"where there is {root}/{unicodedata.normalize('NFD', name)}" in error(root, name)


def test_backslashes_are_named(root):
    assert "backslashes in place of /" in error(root, "a\\one.mp4")


def test_a_path_is_not_printed_at_any_length(root):
    assert len(error(root, "/".join(["x" * 200] * 20))) < 1500


def test_one_video_is_enough(root):
    sources = [Source(root / "a" / name, 0, name[:3]) for name in ("absent.mp4", "one.mp4")]
    assert find_video_folder(sources) == root / "a"
