"""The class names that an exported file gets are those of the file of class names."""

from __future__ import annotations

import argparse

from export import load_named


def test_class_names_are_read_as_those_of_a_shard_set(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("a\u2028b\n\n视频\n", encoding="utf-8-sig")
    args = argparse.Namespace(
        classes=path, num_classes=None, segments=None, weights=None, model="i3d_r18",
        frames=None, size=None,
    )  # fmt: skip
    _, _, metadata = load_named(args)
    assert metadata.classes == ("a\u2028b", "视频")
