"""Lists are UTF-8 text, whose lines end where editors say."""

from __future__ import annotations

import json
import re

import pytest

from shards import ShardError
from shards.annotations import read_classes

ODD_CHARACTERS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("character", ODD_CHARACTERS)
@pytest.mark.parametrize("dataset", ["folder", "csv", "somethingv1"])
def test_only_line_feeds_and_carriage_returns_end_a_line(read, dataset, character):
    name = f"a{character}b"
    lines = {"folder": f"{name}.mp4 0\n", "csv": f"path,label\n{name}.mp4,0\n",
             "somethingv1": f"{name};Holding\n"}  # fmt: skip
    (source,) = read(dataset, lines[dataset]).sources
    assert source.name.removesuffix(".mp4") == name


@pytest.mark.parametrize("character", ODD_CHARACTERS)
def test_a_class_name_may_contain_such_a_character(tmp_path, character):
    (tmp_path / "classes.txt").write_text(f"a{character}b\nc\n", encoding="utf-8")
    assert read_classes(tmp_path / "classes.txt") == (f"a{character}b", "c")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_marks_and_line_ends_of_other_systems(read, end, mark):
    text = mark + end.join(["视频/a.mp4 0", "", "b.mp4 1", ""]).encode()
    assert [(s.name, s.label) for s in read("folder", text).sources] == [
        ("视频/a.mp4", 0), ("b.mp4", 1),
    ]  # fmt: skip


def test_json_may_have_a_byte_order_mark(read):
    entry = {
        "subset": "training",
        "duration": 1,
        "annotations": [{"segment": [0, 1], "label": "é"}],
    }
    text = b"\xef\xbb\xbf" + json.dumps({"database": {"x": entry}}, ensure_ascii=False).encode()
    assert read("activitynet", text, "list.json").classes == ("é",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("dataset", ["folder", "csv", "activitynet"])
def test_utf16_is_named_with_its_remedy(read, dataset, encoding):
    with pytest.raises(ShardError, match=r"UTF-16.*iconv -f UTF-16 -t UTF-8 list\.txt"):
        read(dataset, "a/one.mp4 0\nb/two.mp4 1\n".encode(encoding))


@pytest.mark.parametrize("dataset", ["folder", "csv", "activitynet", "kinetics400"])
def test_text_in_another_encoding_is_named_with_its_line(read, dataset):
    with pytest.raises(ShardError, match=r"line 3: not UTF-8 text \(byte 0xe9\).*iconv"):
        read(dataset, b"a.mp4 0\n\ncaf\xe9.mp4 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,\n2,\n}", "line 3: not valid JSON"),
        ('{"database": {"x": {"annotations": [{"segment": [0, NaN]}]}}}', "NaN is not a number"),
        ("[" * 100_000, "not valid JSON"),
        ('[{"id": "\\ud800", "template": "x"}]', "half of a character"),
    ],
)
def test_broken_json_is_one_line(read, text, message):
    with pytest.raises(ShardError, match=message) as caught:
        read("somethingv2", text, "list.json")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("dataset", ["folder", "csv", "kinetics400", "somethingv1", "ucf101",
                                     "mmaction2"])  # fmt: skip
def test_a_message_quotes_little_of_a_long_line(read, tmp_path, dataset):
    with pytest.raises(ShardError) as caught:
        read(dataset, "long" * 30_000)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 500


def test_a_binary_file_is_not_a_list(read):
    with pytest.raises(ShardError, match="not a text file"):
        read("folder", b"PK\x03\x04 abc\x00\x01\x02 more bytes")


@pytest.mark.parametrize(
    ("dataset", "text", "lines"),
    [
        ("folder", "a.mp4 0\n\n\n\nb.mp4 x\n", "line 5"),
        ("csv", "path,label\na.mp4,0\n\n\n\nb.mp4,x\n", "line 6"),
        ("csv", 'path,label\n"a\nb.mp4",0\nc.mp4,x\n', "line 4"),
        ("kinetics400", "youtube_id,time_start,time_end\n\na,0,1\n\nb,x,2\n", "line 5"),
        ("somethingv1", "\n\n;x\n", "line 3"),
        ("ucf101", "\nA/a.avi 1\n\nB/b.avi 0\n", "line 4"),
        ("mmaction2", "a.mp4 0\n\nb.mp4\n", "line 3"),
        ("folder", "a.mp4 0\n\na.mp4 0\n", "lines 1 and 3"),
        ("folder", "a.mp4 0\n\n./a.mp4 0\n", "lines 1 and 3"),
        ("folder", "a.mp4 0\nb/../a.mp4 1\n", r"lines 1 and 2.*labels 0 and 1"),
        ("csv", "path,label,start,end\na,0,0,1\n\na,0,0,1\n", "lines 2 and 4"),
        ("kinetics400", "label,youtube_id,time_start,time_end\nx,a,0,1\n\nx,a,0.5,1\n",
         "lines 2 and 4"),
        ("somethingv1", "1;x\n\n1;x\n", "lines 1 and 3"),
    ],
)  # fmt: skip
def test_lines_are_counted_with_the_blank_ones(read, dataset, text, lines):
    with pytest.raises(ShardError, match=rf"list\.txt, {lines}\b"):
        read(dataset, text)


def test_class_names_that_are_there_twice(tmp_path):
    (tmp_path / "classes.txt").write_text("a\n\nb\na\n")
    with pytest.raises(ShardError, match="lines 1 and 4"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e400", "00:00:01", "x", "1e9"])
@pytest.mark.parametrize("column", ["start", "end"])
@pytest.mark.parametrize("dataset", ["csv", "kinetics400"])
def test_times_that_are_not_seconds(read, dataset, column, value):
    start, end = (value, "2") if column == "start" else ("0", value)
    names = {"csv": "path,label,start,end", "kinetics400": "youtube_id,label,time_start,time_end"}
    text = f"{names[dataset]}\n{'a' if dataset == 'csv' else 'id'},0,{start},{end}\n"
    wanted = column if dataset == "csv" else f"time_{column}"
    with pytest.raises(ShardError, match=rf"line 2: {wanted} must.*{re.escape(value)}"):
        read(dataset, text)
