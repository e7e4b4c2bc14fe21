"""A machine whose locale is not UTF-8 makes the same set as any other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shards import ShardSettings, build_split
from shards.annotations import read_classes, read_list
from tests.shards.media import moving_squares, write_video

ROOT = Path(__file__).resolve().parents[2]
LOCALES = {"en_US.ISO-8859-1": ("en_US", "ISO-8859-1"), "zh_CN.GBK": ("zh_CN", "GBK")}
NAMES = ("视频.mp4", "café.mp4", "line\u2028separator.mp4")


@pytest.fixture(scope="module")
def locales(tmp_path_factory) -> Path:
    """A folder with the locales, which few machines have installed."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("no localedef to make the locales with")
    for name, (language, encoding) in LOCALES.items():
        command = ["localedef", "-f", encoding, "-i", language, folder / name]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"this machine has no data of the locale {name}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Videos, a list and class names that are not ASCII, and the set that UTF-8 makes of them."""
    folder = tmp_path_factory.mktemp("unicode")
    for number, name in enumerate(NAMES):
        write_video(folder / "videos" / name, moving_squares(4, seed=number))
    lines = [f"{name} {name[:-4]}\n" for name in (*NAMES, "没有.mp4")]
    lines[-1] = f"没有.mp4 {NAMES[0][:-4]}\n"
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    names = "".join(f"{name[:-4]}\n" for name in NAMES)
    (folder / "classes.txt").write_text(names, encoding="utf-8-sig")
    classes = read_classes(folder / "classes.txt")
    listing = read_list("folder", folder / "videos", folder / "list.txt", classes)
    settings = ShardSettings(workers=1)
    build_split(listing.sources, folder / "utf8", "train", listing.classes, settings)
    return folder


@pytest.mark.parametrize("name", LOCALES)
def test_another_locale_makes_the_same_set(locales, folder, name):
    done = subprocess.run(
        [sys.executable, ROOT / "tools/shard.py", "--dataset", "folder", "--split", "train",
         "--videos", folder / "videos", "--list", folder / "list.txt", "--classes",
         folder / "classes.txt", "--out", folder / name, "--workers", "1"],
        env=os.environ | {"LC_ALL": name, "LOCPATH": str(locales), "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    expected = {path.name: path.read_bytes() for path in (folder / "utf8/train").iterdir()
                if path.is_file()}  # fmt: skip
    assert len(expected) > 5
    assert {n: (folder / name / "train" / n).read_bytes() for n in expected} == expected
    shown = "没有.mp4" if name.startswith("zh") else r"\u6ca1\u6709.mp4"
    assert shown in done.stdout.decode(LOCALES[name][1], errors="replace")
