"""The options of a list become its settings; the classes of a set come from its other split."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
from shard_arguments import add_build_arguments, read_listing

from shards import ShardError, ShardSettings, build_split


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_build_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def arguments(folder: Path, out: Path, dataset: str = "folder") -> list[object]:
    return ["--dataset", dataset, "--videos", folder, "--list", folder / "list.txt",
            "--split", "other", "--out", out]  # fmt: skip


def test_options_of_the_list_are_passed_on(tmp_path):
    (tmp_path / "list.txt").write_text("1\ta b.mp4\n")
    words = ["--columns", "label,path", "--delimiter", "tab", "--folder-fps", "10"]
    listing = read_listing(parse(*arguments(tmp_path, tmp_path / "set", "csv"), *words))
    (source,) = listing.sources
    assert (source.name, source.label, source.fps) == ("a b.mp4", 1, "10")
    (tmp_path / "list.txt").write_text("../x.mp4\n")
    words = ["--unlabelled", "--allow-outside"]
    assert read_listing(parse(*arguments(tmp_path, tmp_path), *words)).sources[0].label == -1


def test_a_label_that_the_other_split_lacks_names_that_split(small_shards, tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 3\nb.mp4 4\n")
    with pytest.raises(ShardError) as caught:
        read_listing(parse(*arguments(tmp_path, small_shards)))
    text = str(caught.value)
    assert "list.txt, line 2: label 4 must be less than 4" in text
    assert f"which come from split train of {small_shards}" in text


def test_a_split_without_labels_has_no_classes_for_another(small_videos, tmp_path):
    settings = ShardSettings(workers=1)
    unlabelled = [replace(source, label=-1) for source in small_videos[:1]]
    build_split(unlabelled, tmp_path, "a-test", [], settings)
    build_split(small_videos[:1], tmp_path, "train", ["one", "two"], settings)
    (tmp_path / "list.txt").write_text("a.mp4 two\n")
    listing = read_listing(parse(*arguments(tmp_path, tmp_path)))
    assert listing.classes == ("one", "two")


def test_a_label_that_the_file_of_classes_lacks_names_that_file(tmp_path):
    (tmp_path / "classes.txt").write_text("x\ny\n")
    (tmp_path / "list.txt").write_text("a.mp4 z\n")
    words = ["--classes", tmp_path / "classes.txt"]
    with pytest.raises(ShardError, match=r"the 2 classes, which come from .*classes\.txt"):
        read_listing(parse(*arguments(tmp_path, tmp_path / "set"), *words))
