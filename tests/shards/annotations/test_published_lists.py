"""Lists as UCF101, HMDB51, Something-Something V2, Kinetics-600 and mmaction2 publish them."""

from __future__ import annotations

import json

import pytest

from shards import ShardError, ShardUsageError
from shards.annotations import ListOptions, read_list
from tests.shards.annotations.conftest import touch

UCF_TRAIN = "Archery/v_Archery_g08_c01.avi 2\nApplyLipstick/v_ApplyLipstick_g08_c01.avi 1\n"
UCF_TEST = "Archery/v_Archery_g01_c01.avi\n"
UCF_CLASSES = ("ApplyLipstick", "Archery")


def test_ucf101_labels_begin_at_one(read, videos):
    touch(videos, "Archery/v_Archery_g08_c01.avi")
    listing = read("ucf101", UCF_TRAIN, "trainlist01.txt")
    assert listing.classes == UCF_CLASSES
    assert [(s.name, s.label) for s in listing.sources] == [
        ("Archery/v_Archery_g08_c01.avi", 1), ("ApplyLipstick/v_ApplyLipstick_g08_c01.avi", 0),
    ]  # fmt: skip
    assert listing.warnings == ()


@pytest.mark.parametrize("classes", [UCF_CLASSES, ("1 ApplyLipstick", "2 Archery"), ()])
def test_ucf101_test_lists_have_no_labels(read, tmp_path, classes):
    if not classes:
        (tmp_path / "classInd.txt").write_text("1 ApplyLipstick\r\n2 Archery\r\n")
    listing = read("ucf101", UCF_TEST, "testlist01.txt", classes=classes, split="test")
    assert listing.classes == UCF_CLASSES
    assert [s.label for s in listing.sources] == [1]


def test_ucf101_finds_converted_videos(read, videos):
    touch(videos, "mp4/v_Archery_g01_c01.mp4")
    (source,) = read("ucf101", UCF_TEST, classes=UCF_CLASSES).sources
    assert source.name == "mp4/v_Archery_g01_c01.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UCF_TEST, "give --classes classInd.txt"),
        ("Archery/v_Archery.avi 3\n", "give --classes classInd.txt"),
        ("v_Archery.avi 1\n", "line 1: .* is not 'Class/video.avi label'"),
        ("A/a.avi 1\nB/b.avi 2\nA/c.avi 2\n", "line 3: label 2 is not that of 'A'"),
        ("A/a.avi 0\n", "line 1"),
    ],
)
def test_ucf101_names_what_is_wrong(read, text, message):
    with pytest.raises(ShardError, match=message):
        read("ucf101", text)


@pytest.fixture
def hmdb(tmp_path, videos):
    """The split files of two classes in two folds, and the videos."""
    folder = tmp_path / "splits"
    folder.mkdir()
    rows = {"brush_hair": "a_b#c(1).avi 1 \nd.avi 2 \ne.avi 0 \n", "wave": "f.avi 1\ng.avi 2\n"}
    for name, text in rows.items():
        (folder / f"{name}_test_split1.txt").write_text(text)
        (folder / f"{name}_test_split2.txt").write_text(text.replace("1", "3").replace("2", "1"))
    (folder / "README.txt").write_text("about")
    touch(videos, "brush_hair/a_b#c(1).avi", "brush_hair/d.avi", "wave/f.avi", "wave/g.avi")
    return folder


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["brush_hair/a_b#c(1).avi", "wave/f.avi"]),
        ("test", ["brush_hair/d.avi", "wave/g.avi"]), ("val", ["brush_hair/d.avi", "wave/g.avi"]),
    ],
)  # fmt: skip
def test_hmdb51_reads_a_folder_of_split_files(videos, hmdb, split, names):
    listing = read_list("hmdb51", videos, hmdb, split=split)
    assert listing.classes == ("brush_hair", "wave")
    assert [(s.name, s.label) for s in listing.sources] == list(zip(names, (0, 1), strict=True))
    assert all(s.path.is_file() for s in listing.sources)


def test_hmdb51_reads_one_file_of_a_class(videos, hmdb):
    listing = read_list("hmdb51", videos, hmdb / "wave_test_split1.txt")
    assert [(s.name, s.label) for s in listing.sources] == [("wave/f.avi", 1)]


def test_hmdb51_names_what_is_wrong(videos, hmdb, tmp_path):
    with pytest.raises(ShardError, match=r"brush_hair_test_split2.txt, line 1: .*'video.avi 0'"):
        read_list("hmdb51", videos, hmdb, options=ListOptions(fold=2))
    with pytest.raises(ShardError, match="contains no file such as brush_hair_test_split3"):
        read_list("hmdb51", videos, hmdb, options=ListOptions(fold=3))
    with pytest.raises(ShardUsageError, match="split must be train, val or test"):
        read_list("hmdb51", videos, hmdb, split="all")
    with pytest.raises(ShardUsageError, match="fold must be 1, 2 or 3, got 4"):
        ListOptions(fold=4)
    with pytest.raises(ShardError, match="cannot read the list"):
        read_list("hmdb51", videos, tmp_path / "none")


SSV2 = [
    {"id": "2", "label": "holding cup next to box", "placeholders": ["cup", "box"],
     "template": "Holding [something] next to [something]"},
    {"id": "1", "label": "dropping pen", "template": "Dropping [something]"},
]  # fmt: skip


def test_something_v2_reads_json_and_webm(read, videos):
    touch(videos, "1.webm", "2.webm", "2.txt")
    listing = read("somethingv2", json.dumps(SSV2), "train.json")
    assert listing.classes == ("Dropping something", "Holding something next to something")
    assert [(s.key, s.name, s.label) for s in listing.sources] == [
        ("2", "2.webm", 1), ("1", "1.webm", 0),
    ]  # fmt: skip
    assert all(s.path.is_file() for s in listing.sources)


def test_something_v2_test_list_and_its_answers(read, videos):
    touch(videos, "parts/1.mp4")
    (videos / "2").mkdir()
    unlabelled = read("somethingv2", '[{"id": 1}, {"id": 2}, {"id": 3}]', "test.json")
    assert [(s.name, s.label) for s in unlabelled.sources] == [
        ("parts/1.mp4", -1), ("2", -1), ("3.webm", -1),
    ]  # fmt: skip
    answers = read("somethingv2", "1;Dropping something\n", "test-answers.csv")
    assert answers.classes == ("Dropping something",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([*SSV2, {"id": "3"}], "entry 3: no label"), ([*SSV2, 5], "entry 3: .*not an object"),
        ([*SSV2, {"template": "x"}], "entry 3: no id"), ({"id": "1"}, "not a JSON array"),
        ([*SSV2, SSV2[0]], "entries 1 and 3"), ([], "empty"),
    ],
)  # fmt: skip
def test_something_v2_names_what_is_wrong(read, content, message):
    with pytest.raises(ShardError, match=message):
        read("somethingv2", json.dumps(content), "train.json")


@pytest.mark.parametrize("dataset", ["kinetics400", "kinetics600", "kinetics700"])
@pytest.mark.parametrize("header", ["", "label,youtube_id,time_start,time_end,split\n"])
def test_kinetics_with_and_without_a_header(read, videos, dataset, header):
    touch(videos, "massaging person's head/ccccccccccc_000000_000010.mp4")
    rows = "massaging person's head,ccccccccccc,0,10,train\n"
    listing = read(dataset, header + rows, "train.txt")
    assert listing.classes == ("massaging person's head",)
    assert [(s.label, s.path.is_file()) for s in listing.sources] == [(0, True)]


def test_kinetics_labels_are_missing_in_all_rows_or_in_none(read):
    header = "label,youtube_id,time_start,time_end\n"
    assert read("kinetics600", f"{header},a,0,10\n,b,0,10\n").sources[0].label == -1
    with pytest.raises(ShardError, match="line 4: no label, though other lines have one"):
        read("kinetics600", f"{header}x,a,0,10\nx,b,0,10\n,c,0,10\n")


def test_kinetics_ids_that_a_spreadsheet_destroyed(read):
    with pytest.raises(ShardError, match=r"line 2: '#NAME\?'.*spreadsheet"):
        read("kinetics400", "label,youtube_id,time_start,time_end\nx,#NAME?,0,10\n")


def test_kinetics_class_names_that_are_one_are_refused(read):
    text = "label,youtube_id,time_start,time_end\nplay ball,a,0,1\n"
    with pytest.raises(ShardError, match=r"two of the 2 class names.*underscores"):
        read("kinetics400", text, classes=("play_ball", "Play ball"))


def test_kinetics_with_columns_in_another_order(read):
    options = {"columns": ("youtube_id", "time_start", "time_end", "label"), "delimiter": "tab"}
    (source,) = read("kinetics700", "a\t0\t10\tplay ball\n", **options).sources
    assert (source.key, source.label) == ("a_000000", 0)


def test_kinetics_says_which_names_become_one_class(read):
    rows = "Play Ball,a,0,1\nplay_ball,b,0,1\n"
    listing = read("kinetics400", f"label,youtube_id,time_start,time_end\n{rows}")
    assert listing.classes == ("play ball",)
    assert "'Play Ball' and 'play_ball' are one class" in listing.warnings[0]


MMACTION2 = {
    "videos": ("a b/x.mp4 1\nc/y.mkv 0\n", [("a b/x.mp4", (1,), ()), ("c/y.mkv", (0,), ())]),
    "frames": ("a b/x 163 1\ny 5 0\n", [("a b/x", (1,), (0, 163)), ("y", (0,), (0, 5))]),
    "clips": ("x 12 163 1\nx 0 5 0\n", [("x", (1,), (12, 163)), ("x", (0,), (0, 5))]),
}


@pytest.mark.parametrize("kind", MMACTION2)
def test_mmaction2_lists(read, kind):
    text, expected = MMACTION2[kind]
    sources = read("mmaction2", text).sources
    assert [(s.name, s.all_labels, s.frames) for s in sources] == expected
    assert len({s.key for s in sources}) == len(sources)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.mp4 0 2 1\ny.mp4 1\n", [((0, 2, 1), ()), ((1,), ())]),
        ("x 163 0 2\ny 5 1\n", [((0, 2), (0, 163)), ((1,), (0, 5))]),
    ],
)
def test_mmaction2_lists_with_several_labels(read, text, expected):
    sources = read("mmaction2", text, multi_label=True).sources
    assert [(s.all_labels, s.frames) for s in sources] == expected
    assert [s.label for s in sources] == [labels[0] for labels, _ in expected]


def test_mmaction2_lists_in_json(read):
    videos = [{"filename": "x.mp4", "label": [0, 1]}, {"filename": "y.mp4", "label": 1}]
    sources = read("mmaction2", json.dumps(videos), "l.json", multi_label=True).sources
    assert [(s.name, s.all_labels, s.frames) for s in sources] == [
        ("x.mp4", (0, 1), ()), ("y.mp4", (1,), ()),
    ]  # fmt: skip
    clips = [{"frame_dir": "x", "offset": 4, "total_frames": 9, "label": 0}]
    (source,) = read("mmaction2", json.dumps(clips), "l.json").sources
    assert source.frames == (4, 9)


@pytest.mark.parametrize("dataset", ["activitynet", "mmaction2"])
def test_mmaction2_list_of_activitynet(read, videos, dataset):
    touch(videos, "v_one.mp4")
    marks = [{"segment": [1.5, 3.0], "label": "Rock climbing"}]
    entry = {"duration_second": 5.0, "duration_frame": 150, "annotations": marks, "fps": 30.0}
    segments = {"segments": "2"} if dataset == "activitynet" else {}
    listing = read(dataset, json.dumps({"v_one": entry}), "anno.json", **segments)
    assert listing.classes == ("Rock climbing",)
    (source,) = listing.sources
    assert (source.name, source.labels) == ("v_one.mp4", (0,))
    assert (source.start, source.end) == ((2.0, 4.0) if segments else (None, None))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("x.mp4 0 2\n", "l.txt", "line 1: .*--multi-label"), ("x 5\n", "l.txt", "--dataset folder"),
        ("x 0 1\n", "l.txt", "line 1: a video of 0 frames"), ("x.mp4\n", "l.txt", "line 1: .* is"),
        ("x.mp4 a\n", "l.txt", "line 1: the label 'a'"), ("{}", "l.json", "neither an array"),
        ('[{"label": 0}]', "l.json", "entry 1: no filename"),
        ('[{"filename": "x", "label": [1, 2]}]', "l.json", "entry 1: several labels"),
        ('[{"frame_dir": "x", "total_frames": -2, "label": 1}]', "l.json", "entry 1: offset"),
    ],
)  # fmt: skip
def test_mmaction2_names_what_is_wrong(read, text, name, message):
    with pytest.raises(ShardError, match=message):
        read("mmaction2", text, name)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("frames/x 10 0\n", "--dataset mmaction2"),
        ("x.mp4 0 2\n", "--dataset mmaction2 --multi-label"),
        ("x.mp4,0\n", "--columns path,label"), ("x.mp4\n", "--unlabelled"),
        ("# a comment\n", "delete the line"),
    ],
)  # fmt: skip
def test_lists_of_other_kinds_are_named(read, text, remedy):
    with pytest.raises(ShardError, match=f"line 1: .*{remedy}"):
        read("folder", text)


def test_a_name_that_ends_with_a_number_is_one_where_it_exists(read, videos):
    (videos / "clip 3").mkdir()
    (source,) = read("folder", "clip 3 0\n").sources
    assert (source.name, source.label) == ("clip 3", 0)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a.mp4,1\nb.mp4,0\n", {"columns": ("path", "label")}),
        ("1\ta.mp4\n0\tb.mp4\n", {"columns": ("label", "path"), "delimiter": "tab"}),
        ("a.mp4  1\nb.mp4 0\n", {"columns": ("path", "label"), "delimiter": "space"}),
        ("path;label\na.mp4;1\nb.mp4;0\n", {"delimiter": "semicolon"}),
        ("Path, Label \na.mp4, 1\nb.mp4 ,0\n", {}),
    ],
)
def test_csv_files_of_other_shapes(read, text, options):
    sources = read("csv", text, **options).sources
    assert [(s.name, s.label) for s in sources] == [("a.mp4", 1), ("b.mp4", 0)]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.mp4\t0\n", {}, "line 1: .*no column path.*--columns path,label.*--delimiter tab"),
        ("video,class\na,0\n", {}, "line 1: .*it is 'video,class'"),
        ("a,0\n", {"columns": ("path",)}, "has no label"),
        ("path,label\na,b,0\n", {}, "line 2: 3 fields for the 2 columns.*double quotes"),
        ("path,label,path\na,0,b\n", {}, "has a column twice"),
        ("path,label\na,\n", {}, "line 2: the label '' is empty"),
    ],
)
def test_csv_says_which_column_and_what_to_do(read, text, options, message):
    with pytest.raises(ShardError, match=message):
        read("csv", text, **options)


@pytest.mark.parametrize(
    ("dataset", "text"),
    [("folder", "a b.mp4\nc.mp4\n"), ("csv", "path\na b.mp4\nc.mp4\n"),
     ("mmaction2", "a b.mp4\nc.mp4\n")],
)  # fmt: skip
def test_a_list_without_labels(read, dataset, text):
    listing = read(dataset, text, unlabelled=True)
    assert [(s.name, s.all_labels) for s in listing.sources] == [("a b.mp4", ()), ("c.mp4", ())]
    assert listing.classes == listing.warnings == ()


@pytest.mark.parametrize(
    ("dataset", "options"),
    [("folder", {"columns": ("path", "label")}), ("csv", {"fold": 2}),
     ("kinetics400", {"unlabelled": True}), ("folder", {"multi_label": True})],
)  # fmt: skip
def test_options_that_a_list_has_no_use_for_are_refused(read, dataset, options):
    (name,) = options
    with pytest.raises(ShardUsageError, match=f"{name} must be .* for every data set except"):
        read(dataset, "a.mp4 0\n", **options)
