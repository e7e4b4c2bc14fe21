"""A source that a worker cannot open gets a verdict, and the others become samples."""

from __future__ import annotations

from dataclasses import replace

from shards import ShardSettings, build_split

SETTINGS = ShardSettings(workers=1)


CLASSES = ["one", "two"]


def test_a_path_with_a_nul_is_refused_and_the_rest_goes_on(small_set, tmp_path):
    odd = replace(small_set.sources[0], path=small_set.videos / "a\0b.mp4", key="odd")
    report = build_split([odd, *small_set.sources], tmp_path, "train", CLASSES, SETTINGS)
    assert report.exit_code == 3
    assert [(v["key"], v["status"], v["kind"]) for v in report.refused] == [
        ("odd", "refused", "path")
    ]
