"""Labels that cannot be class numbers are refused; those that are odd are warned of."""

from __future__ import annotations

import json
import re
import resource
import time

import pytest

from shards import ShardError
from shards.annotations import read_classes


@pytest.mark.parametrize("label", ["20240101", "50000000", "999999999", "100218", "1500"])
@pytest.mark.parametrize("dataset", ["folder", "csv", "mmaction2"])
def test_a_date_an_id_or_a_count_is_refused_at_once(read, dataset, label):
    text = {"csv": f"path,label\na.mp4,0\nb.mp4,{label}\n"}.get(
        dataset, f"a.mp4 0\nb.mp4 {label}\n"
    )
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ShardError, match=rf"line {3 if dataset == 'csv' else 2}: label {label}"):
        read(dataset, text)
    assert time.process_time() - started < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_numbers_of_frames_in_place_of_labels(read):
    lines = "".join(f"v{number}.mp4 {150 + 7 * number}\n" for number in range(20))
    with pytest.raises(ShardError, match=r"line 20: label 283 would make 284 classes.*frames"):
        read("folder", lines)


def test_large_labels_are_fine_where_the_classes_are_given(read):
    names = tuple(f"c{number}" for number in range(2000))
    assert read("folder", "a.mp4 1999\n", classes=names).sources[0].label == 1999


def test_a_small_part_of_many_classes_is_fine(read):
    lines = "".join(f"v{n}.mp4 {n * 9}\n" for n in range(40))
    assert len(read("folder", lines).classes) == 352


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("-1", "--unlabelled"), ("0.0", "write it as 0"), ("1.5", "not a number"),
        ("²", "not a number"), ("1" * 5000, "not a class number"),
    ],
)  # fmt: skip
def test_why_a_label_is_not_a_class_number(read, label, reason):
    with pytest.raises(ShardError, match=f"line 1: the label .*{reason}") as caught:
        read("folder", f"a.mp4 {label}\n")
    assert len(str(caught.value)) < 500


def test_a_label_that_is_nearly_a_class(read):
    with pytest.raises(ShardError, match="not one of the 2 classes; did you mean 'walk'"):
        read("folder", "a.mp4 Walk\n", classes=("walk", "run"))


def test_a_label_beyond_the_classes_says_where_they_come_from(read):
    options = {"classes": ("0",), "classes_from": "split val of shards"}
    with pytest.raises(ShardError, match=r"line 2: label 1 must be less than 1.*split val of sh"):
        read("folder", "a.mp4 0\nb.mp4 1\n", **options)


@pytest.mark.parametrize(
    ("text", "classes", "warning"),
    [
        ("a.mp4 1\nb.mp4 2\n", (), "no video has label 0; if its labels begin at 1, subtract 1"),
        ("a.mp4 0\nb.mp4 3\n", (), r"2 of 4 classes have no video \(1, 2\)"),
        ("a.mp4 0\n", ("x", "y"), r"1 of 2 classes have no video \('y'\)"),
        ("a.mp4 0\nb.mp4 1\n", ("1 x", "2 y"), "every class name begins with a number"),
        ("a.mp4 0\nb.mp4 1\n", ("0,x", "1,y"), "every class name begins with a number"),
    ],
)
def test_odd_labels_are_warned_of(read, text, classes, warning):
    (found,) = read("folder", text, classes=classes).warnings
    assert re.search(warning, found)


@pytest.mark.parametrize("classes", [(), ("3 steps", "2 hops")])
def test_usual_labels_are_not_warned_of(read, classes):
    assert read("folder", "a.mp4 0\nb.mp4 1\n", classes=classes).warnings == ()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"b": "1", "a": "0"}, ("a", "b")), ({"b": 0, "a": 1}, ("b", "a")),
        (["b", "a"], ("b", "a")),
    ],
)  # fmt: skip
def test_class_names_in_json(tmp_path, content, names):
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert read_classes(path) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 0, "b": 2}, "not numbered"), ({"a": True}, "not numbered"), ([], "no class names"),
        ([1], "no class names"), (["a", "a"], "twice"), ({"a": [0]}, "not numbered"),
    ],
)  # fmt: skip
def test_json_that_does_not_name_classes(tmp_path, content, message):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ShardError, match=message):
        read_classes(path)
