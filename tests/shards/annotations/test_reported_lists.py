"""Lists that people have brought, with what becomes of each."""

from __future__ import annotations

import os

import pytest

from shards import ShardError
from shards.annotations import ListOptions, read_classes, read_list

# Data set, list, options ("classes" is a file), videos that are found, class of the first.
READ = [
    ("folder", "crlf_bom.txt", {}, 3, "0"),
    ("folder", "names.txt", {"classes": "classes3.txt"}, 22, "walk"),
    ("folder", "dotdot.txt", {}, 3, "0"),
    ("folder", "tab.txt", {}, 3, "0"),
    ("folder", "raw2.txt", {}, 2, "0"),
    ("folder", "onlyone.txt", {}, 1, "0"),
    ("csv", "comma.csv", {"columns": ("path", "label")}, 3, "0"),
    ("csv", "space.csv", {"columns": ("path", "label"), "delimiter": "space"}, 3, "0"),
    ("csv", "header_caps.csv", {}, 2, "0"),
    ("csv", "header_space.csv", {}, 2, "0"),
    ("csv", "quoted.csv", {"classes": "quoted_classes.txt"}, 2, "cut, slice"),
    ("kinetics400", "k400.csv", {}, 3, "air drumming"),
    ("kinetics400", "k_headerless.csv", {}, 1, "air drumming"),
    ("kinetics400", "k_float.csv", {}, 2, "air drumming"),
    ("kinetics400", "k_mm.csv", {}, 1, "air drumming"),
    ("kinetics600", "k600.csv", {}, 2, "massaging person's head"),
    ("kinetics600", "k600_test_nolabel.csv", {}, 1, None),
    ("kinetics400", "k_unlab.csv", {}, 2, None),
    ("ucf101", "ucf_train.txt", {}, 6, "ApplyEyeMakeup"),
    ("ucf101", "ucf_test.txt", {"classes": "ucf_classInd.txt"}, 3, "ApplyEyeMakeup"),
    ("somethingv1", "ssv1.csv", {}, 1, "Holding something"),
    ("somethingv2", "ssv2_train.json", {"classes": "ssv2_labels.json"}, 2,
     "Holding something next to something"),
    ("mmaction2", "mm_raw.txt", {}, 2, "0"),
    ("mmaction2", "multilabel.txt", {"multi_label": True}, 2, "0"),
    ("activitynet", "anet.json", {}, 1, "Long jump"),
    ("activitynet", "anet_bom.json", {}, 1, "Long jump"),
]  # fmt: skip
# Data set, list, what the error names.
REFUSED = [
    ("folder", "label_date.txt", "line 2: label 20240101"),
    ("folder", "label_float.txt", "line 1: .*write it as 0"),
    ("folder", "label_minus1.txt", "line 1: .*--unlabelled"),
    ("folder", "blank_then_bad.txt", "line 5"),
    ("folder", "dup_same.txt", "lines 1 and 2: .*twice"),
    ("folder", "dup_conflict.txt", "lines 1 and 2: .*labels 0 and 1"),
    ("folder", "utf16.txt", "UTF-16.*iconv"),
    ("folder", "url.txt", "line 1: .*download"),
    ("folder", "abs.txt", "line 1: .*--allow-outside"),
    ("folder", "comment.txt", "line 1: .*delete the line"),
    ("folder", "empty.txt", "the list is empty"),
    ("folder", "mm_raw.txt", "line 1: .*--dataset mmaction2"),
    ("folder", "multilabel.txt", "line 1: .*--multi-label"),
    ("folder", "nolabel_name.txt", "line 1: the label 'Walk'.*--classes"),
    ("csv", "blank_then_bad.csv", "line 6"),
    ("csv", "comma.csv", "line 1: .*no column path.*--columns"),
    ("csv", "video_path_header.csv", "line 1: .*no column path.*video_path,class"),
    ("csv", "onlyheader.csv", "no line after its header"),
    ("csv", "cut_hms.csv", "line 2: start must be a number of seconds"),
    ("csv", "cut_neg.csv", "line 2: start must be a number of seconds"),
    ("csv", "cut_noend.csv", "line 2: end is missing"),
    ("csv", "cut_overlap.csv", "lines 2 and 3"),
    ("kinetics400", "k_nan.csv", "line 2: time_start must be"),
    ("kinetics400", "k_neg.csv", "line 2: time_start must be"),
    ("kinetics400", "k_dup.csv", "lines 2 and 3"),
    ("kinetics400", "k_excel.csv", "line 2: .*spreadsheet"),
    ("kinetics400", "k_onelabelmissing.csv", "line 4: no label"),
    ("somethingv1", "ssv1_comma.csv", "line 1: .*'id;label'"),
]
FOLDERS = {"kinetics400": "k400", "kinetics600": "k400", "somethingv1": "ssv1",
           "somethingv2": "ssv2", "activitynet": "anet"}  # fmt: skip


@pytest.fixture
def reports(real):
    if not (real / "reports/lists").is_dir():
        pytest.skip(f"no reported lists in {real}")
    return real / "reports"


def read(reports, dataset, name, classes="", **options):
    videos = reports / "files" / FOLDERS.get(dataset, "")
    names = read_classes(reports / "lists" / classes) if classes else ()
    path = reports / "lists" / name
    return read_list(dataset, videos, path, names, options=ListOptions(**options))


@pytest.mark.parametrize(("dataset", "name", "options", "found", "label"), READ)
def test_lists_that_are_understood(reports, dataset, name, options, found, label):
    listing = read(reports, dataset, name, **options)
    assert [os.path.exists(source.path) for source in listing.sources] == [True] * found
    first = listing.sources[0].label
    assert (listing.classes[first] if first >= 0 else None) == label
    assert not any(source.name.startswith(("/", "./", "../")) for source in listing.sources)


@pytest.mark.parametrize(("dataset", "name", "message"), REFUSED)
def test_lists_that_are_refused(reports, dataset, name, message):
    with pytest.raises(ShardError, match=message) as caught:
        read(reports, dataset, name)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 600
