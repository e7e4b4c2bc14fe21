"""Each data set's lists become the right sources."""

from __future__ import annotations

import json
import os

import pytest

from shards import ShardError, ShardUsageError
from shards.annotations import read_classes, read_list
from shards.annotations.kinetics import most_frequent_classes
from tests.alarm import alarm


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def by_key(listing):
    return {source.key: source for source in listing.sources}


def test_folder_takes_numbers_and_names(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a b/x.mp4 1\nc/y.mp4 playing guitar\n\nz.mp4 yoga\n")
    listing = read_list("folder", tmp_path, path, ["yoga", "playing guitar"])
    assert [(s.name, s.label) for s in listing.sources] == [
        ("a b/x.mp4", 1), ("c/y.mp4", 1), ("z.mp4", 0),
    ]  # fmt: skip
    assert listing.sources[0].path == tmp_path / "a b/x.mp4"


def test_folder_without_classes_counts_them(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("x.mp4 2\n")
    assert read_list("folder", tmp_path, path).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x.mp4\n", "line 1"),
        ("x.mp4 0\ny.mp4 dancing\n", "line 2.*dancing"),
        ("x 0\nx 1\n", "twice"),
        ("x.mp4 \u00b2\n", "line 1.*label"),
        ("x.mp4 99999999999999999999\n", "line 1.*label"),
    ],
)
def test_folder_names_the_wrong_line(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ShardError, match=message):
        read_list("folder", tmp_path, path)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ShardError, match="cannot read the list"):
        read_list("folder", tmp_path, tmp_path / "none.txt")


def test_csv_with_segments(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('path,label,start,end\n"a,b.mp4",0,,\nc.mp4,1,1.5,3\nc.mp4,0,3,4.25\n')
    sources = read_list("csv", tmp_path, path).sources
    assert [(s.name, s.label, s.start, s.end) for s in sources] == [
        ("a,b.mp4", 0, None, None), ("c.mp4", 1, 1.5, 3.0), ("c.mp4", 0, 3.0, 4.25),
    ]  # fmt: skip
    assert [s.key for s in sources] == ["a_b", "c_1500_3000", "c_3000_4250"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("name,label\nx,0\n", "column path"), ("path,label\n", "no line after its header"),
     ("path,label,start,end\nx,0,5,4\n", "no length"),
     ("path,label\n" + "x" * 200_000 + ",0\n", "is not CSV")],
)  # fmt: skip
def test_csv_names_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ShardError, match=message):
        read_list("csv", tmp_path, path)


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics_line(label: str, name: str, start: int = 3) -> str:
    return f'"{label}",{name},{start},{start + 10},train,0\n'


def test_kinetics_finds_the_usual_names(tmp_path):
    videos = tmp_path / "k400"
    touch(
        videos,
        "playing guitar/aaaaaaaaaaa_000003_000013.mp4",
        "playing_guitar/-bbbbbbbbbb_000003_000013.mkv",
        "train/ccccccccccc_000003_000013.webm",
        "yoga/ddddddddddd.mp4",
        "broken/eeeeeeeeeee_000003_000013.mp4",
        "replacement_for_corrupted_k400/eeeeeeeeeee_000003_000013.mp4",
        "other/fffffffffff_000003_000013.mp4",
        "yoga/fffffffffff_000003_000013.avi",
        "yoga/fffffffffff_000003_000013.txt",
    )
    path = tmp_path / "train.csv"
    labels = {"aaaaaaaaaaa": "playing guitar", "-bbbbbbbbbb": "playing guitar"}
    names = [*labels, "ccccccccccc", "ddddddddddd", "eeeeeeeeeee", "fffffffffff", "ggggggggggg"]
    path.write_text(KINETICS + "".join(kinetics_line(labels.get(n, "yoga"), n) for n in names))
    listing = read_list("kinetics400", videos, path)
    found = {s.key[:11]: s for s in listing.sources}
    assert listing.classes == ("playing guitar", "yoga")
    assert {key: s.name for key, s in found.items() if s.path.exists()} == {
        "aaaaaaaaaaa": "playing guitar/aaaaaaaaaaa_000003_000013.mp4",
        "-bbbbbbbbbb": "playing_guitar/-bbbbbbbbbb_000003_000013.mkv",
        "ccccccccccc": "train/ccccccccccc_000003_000013.webm",
        "ddddddddddd": "yoga/ddddddddddd.mp4",
        "eeeeeeeeeee": "replacement_for_corrupted_k400/eeeeeeeeeee_000003_000013.mp4",
        "fffffffffff": "yoga/fffffffffff_000003_000013.avi",
    }
    whole = found["ddddddddddd"]
    assert (whole.start, whole.end, whole.if_longer) == (3.0, 13.0, True)
    assert found["aaaaaaaaaaa"].start is None
    assert not found["ggggggggggg"].path.exists()
    assert [found[n].label for n in ("aaaaaaaaaaa", "ccccccccccc")] == [0, 1]


def test_kinetics_classes_may_be_given_with_underscores(tmp_path):
    path = tmp_path / "val.csv"
    path.write_text(KINETICS + kinetics_line("playing guitar", "aaaaaaaaaaa"))
    classes = ["yoga", "playing_guitar"]
    (source,) = read_list("kinetics400", tmp_path, path, classes).sources
    assert source.label == 1


def test_kinetics_names_a_class_it_does_not_know(tmp_path):
    path = tmp_path / "val.csv"
    path.write_text(KINETICS + kinetics_line("surfing", "aaaaaaaaaaa"))
    with pytest.raises(ShardError, match="surfing"):
        read_list("kinetics400", tmp_path, path, ["yoga"])


def test_kinetics_wants_its_columns_and_its_folder(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("path,label\nx,0\n")
    with pytest.raises(ShardError, match="youtube_id"):
        read_list("kinetics400", tmp_path, path)
    path.write_text(KINETICS + kinetics_line("yoga", "aaaaaaaaaaa"))
    with pytest.raises(ShardError, match="does not exist"):
        read_list("kinetics400", tmp_path / "nowhere", path)


def test_mini_kinetics_takes_the_most_frequent_classes():
    labels = [f"class {i:03d}" for i in range(300) for _ in range(1 + (i * 7) % 300)]
    chosen = most_frequent_classes(labels)
    counts = {name: labels.count(name) for name in set(labels)}
    assert len(chosen) == 200
    assert list(chosen) == sorted(chosen)
    assert min(counts[name] for name in chosen) > max(
        count for name, count in counts.items() if name not in chosen
    )


def test_mini_kinetics_by_rule_and_by_list(tmp_path):
    path = tmp_path / "train.csv"
    rows = [kinetics_line(f"c{i % 250}", f"id{i:09d}") for i in range(450)]
    path.write_text(KINETICS + "".join(rows))
    listing = read_list("mini-kinetics200", tmp_path, path)
    assert len(listing.classes) == 200
    assert set(listing.classes) == {f"c{i}" for i in range(200)}  # two videos each, not one
    assert len(listing.sources) == 400
    explicit = read_list("mini-kinetics200", tmp_path, path, ["c249"])
    assert [s.label for s in explicit.sources] == [0]
    path.write_text(KINETICS + kinetics_line("c0", "x").replace("train", "val"))
    with pytest.raises(ShardError, match="not a training list"):
        read_list("mini-kinetics200", tmp_path, path)


def test_something_reads_ids_and_labels(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("100218;Dropping [something]\n24413;Pushing [something], slowly\n")
    labels = ["Pushing [something], slowly", "Dropping [something]"]
    listing = read_list("somethingv1", tmp_path, path, labels)
    assert [(s.key, s.label, s.fps) for s in listing.sources] == [
        ("100218", 1, "12"), ("24413", 0, "12"),
    ]  # fmt: skip
    assert listing.sources[0].path == tmp_path / "100218"


@pytest.fixture
def activitynet(tmp_path):
    videos = tmp_path / "videos"
    touch(videos, "v_one.mp4", "v_two.mkv")
    marks = [
        {"segment": [10, 30], "label": "B"},
        {"segment": [2, 8], "label": "A"},
        {"segment": [50, 50], "label": "A"},
    ]
    database = {
        "one": {"subset": "training", "duration": 60.0, "annotations": marks},
        "two": {"subset": "validation", "duration": 5.0, "annotations": marks[1:2]},
        "three": {"subset": "training", "duration": 9.0, "annotations": []},
    }
    path = tmp_path / "activity_net.v1-3.json"
    path.write_text(json.dumps({"database": database}))
    return videos, path


def test_activitynet_whole_videos_have_all_labels(activitynet):
    listing = read_list("activitynet", *activitynet, split="train")
    found = by_key(listing)
    assert listing.classes == ("A", "B")
    assert found["one"].labels == (0, 1)
    assert found["one"].segments == ((2.0, 8.0, 0), (10.0, 30.0, 1))
    assert found["three"].labels == ()
    assert found["three"].label == -1
    assert found["one"].path.name == "v_one.mp4"


def test_activitynet_labelled_segments(activitynet):
    found = read_list("activitynet", *activitynet, split="train", segments="labelled").sources
    assert [(s.key, s.start, s.end, s.label) for s in found] == [
        ("one_000", 2.0, 8.0, 0), ("one_001", 10.0, 30.0, 1),
    ]  # fmt: skip


def test_activitynet_pieces_of_seconds(activitynet):
    found = read_list("activitynet", *activitynet, split="train", segments="10").sources
    assert [(s.start, s.end, s.labels) for s in found] == [
        (0.0, 10.0, (0,)), (10.0, 20.0, (1,)), (20.0, 30.0, (1,)),
    ]  # fmt: skip


def test_activitynet_says_what_it_lacks(activitynet):
    with pytest.raises(ShardError, match="testing"):
        read_list("activitynet", *activitynet, split="test")
    with pytest.raises(ShardUsageError, match="segments must be"):
        read_list("activitynet", *activitynet, segments="half")


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ([], "not an object"),
        ({"a": {"annotations": [{"segment": [1], "label": "x"}]}}, "video a: the entry"),
        ({"a": {"annotations": [{"label": "x"}]}}, "video a: the entry"),
        ({"a": {"duration": "long"}}, "video a: the entry"),
        ({"a": 3}, "video a: the entry"),
    ],
)
def test_a_damaged_activitynet_list_is_one_clear_line(activitynet, database, message):
    videos, path = activitynet
    path.write_text(json.dumps({"database": database}))
    with pytest.raises(ShardError, match=message):
        read_list("activitynet", videos, path)


def test_an_unknown_duration_is_none_at_all(activitynet):
    videos, path = activitynet
    entry = {"subset": "training", "duration": None, "annotations": None}
    path.write_text(json.dumps({"database": {"one": entry}}))
    (source,) = read_list("activitynet", videos, path, ["A"]).sources
    assert source.labels == ()
    with_pieces = read_list("activitynet", videos, path, ["A"], segments="10")
    assert with_pieces.sources == []


def test_classes_are_named_once(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("a\nb\na\n")
    with pytest.raises(ShardError, match="twice"):
        read_classes(path)


def test_segments_of_a_list_that_has_none_are_refused(tmp_path):
    with pytest.raises(ShardUsageError, match="segments must be whole"):
        read_list("folder", tmp_path, tmp_path / "list.txt", segments="labelled")


@pytest.mark.parametrize("dataset", ["folder", "csv", "kinetics400", "somethingv1", "activitynet"])
def test_a_list_that_is_a_pipe_or_a_device_is_refused_at_once(tmp_path, dataset):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        (tmp_path / "list").unlink(missing_ok=True)
        (tmp_path / "list").symlink_to(path)
        with (
            alarm(),
            pytest.raises(ShardError, match=r"cannot read the list .* not a regular file"),
        ):
            read_list(dataset, tmp_path, tmp_path / "list")
        with alarm(), pytest.raises(ShardError, match="not a regular file"):
            read_classes(tmp_path / "list")
