"""tools/shard.py as a user runs it: data sets, exit codes, one-line errors, commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shards import open_split
from tests.shards.media import jpeg, moving_squares, write_video

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, code: int = 0, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools/shard.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **more)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        frames = moving_squares(10 + number, seed=number)
        write_video(folder / f"class {number % 2}" / f"v{number}.mp4", frames)
    (folder / "broken.mp4").write_text("no video")
    (folder / "classes.txt").write_text("class 0\nclass 1\n")
    lines = [f"class {n % 2}/v{n}.mp4 {n % 2}" for n in range(4)]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    (folder / "bad.txt").write_text("\n".join([*lines, "broken.mp4 0", "absent.mp4 1"]) + "\n")
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{x[:-2]},{x[-1]}\n" for x in lines))
    return folder


def options(videos: Path, out: Path, dataset: str = "folder", listing: str = "list.txt") -> list:
    found = ["--dataset", dataset, "--videos", videos, "--list", videos / listing]
    return [*found, "--split", "train", "--out", out, "--workers", 1]


@pytest.mark.parametrize(("dataset", "listing"), [("folder", "list.txt"), ("csv", "list.csv")])
def test_plain_lists(videos, tmp_path, dataset, listing):
    done = run(*options(videos, tmp_path, dataset, listing), "--classes", videos / "classes.txt")
    assert "4 samples" in done.stdout
    split = open_split(tmp_path, "train")
    assert len(split) == 4
    assert split.classes == ("class 0", "class 1")
    assert run("verify", tmp_path).stdout.strip().endswith("valid")


def test_bad_videos_are_listed_and_the_exit_code_says_so(videos, tmp_path):
    done = run(*options(videos, tmp_path, listing="bad.txt"), code=3)
    assert "broken.mp4: unreadable" in done.stdout
    assert "absent.mp4: missing" in done.stdout
    assert "2 of 6 sources not used" in done.stdout
    assert len(open_split(tmp_path, "train")) == 4


def test_a_training_list_with_a_video_without_a_label(videos, tmp_path):
    database = {
        f"v{n}": {"subset": "training", "duration": 0.4, "annotations": [
            {"segment": [0, 0.4], "label": f"class {n % 2}"}] if n != 1 else []}
        for n in range(4)
    }  # fmt: skip
    (tmp_path / "anet.json").write_text(json.dumps({"database": database}))
    arguments = options(videos, tmp_path / "set", "activitynet", tmp_path / "anet.json")
    done = run(*arguments)
    assert "1 of 4 samples without a label (v1" in done.stdout
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--recipe",
        "demo",
        "--out",
        tmp_path / "run",
    ]
    command += ["--data", tmp_path / "set", "--batch.videos", "2", "--batch.per_gpu", "2"]
    command += ["--validation.split", "null", "--epoch_limit", "1"]
    trained = subprocess.run(
        [*map(str, command)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert trained.returncode == 1
    [line] = [line for line in trained.stderr.splitlines() if line.startswith("error: ")]
    assert "train: 1 of 4 samples without a label" in line
    assert "v1" in line
    assert "Traceback" not in trained.stderr


def test_the_classes_of_one_split_serve_the_next(videos, tmp_path):
    arguments = options(videos, tmp_path)
    run(*arguments, "--classes", videos / "classes.txt")
    arguments[arguments.index("train")] = "val"
    run(*arguments)
    assert open_split(tmp_path, "val").classes == ("class 0", "class 1")


def test_tasks_merge_and_reindex(videos, tmp_path):
    arguments = [*options(videos, tmp_path), "--tar-samples", 2]
    assert "merge" in run(*arguments, "--task", "1/2").stdout
    assert "not finished" in run("merge", tmp_path, code=1).stderr
    run(*arguments, "--task", "0/2")
    before = (tmp_path / "train/manifest.json").read_text()
    (tmp_path / "train/manifest.json").unlink()
    run("merge", tmp_path)
    assert (tmp_path / "train/manifest.json").read_text() == before
    for path in (tmp_path / "train").glob("*.npy"):
        path.unlink()
    run("reindex", tmp_path / "train")
    assert run("verify", tmp_path).stdout.strip().endswith("valid")


def test_verify_names_a_flipped_byte(videos, tmp_path):
    run(*options(videos, tmp_path))
    (tar,) = (tmp_path / "train").glob("*.tar")
    data = bytearray(tar.read_bytes())
    data[3000] ^= 1
    tar.write_bytes(bytes(data))
    done = run("verify", tmp_path, code=1)
    assert "fault: " in done.stderr
    assert tar.name in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--codec", "av1"], 2, "invalid choice"),
        (["--short-side", "3"], 2, "short_side must be between 16 and 4096, got 3"),
        (["--fps", "fast"], 2, "fps must be"),
        (["--task", "3/3"], 2, "task must be I/N"),
        (["--split", "a/b"], 2, "split must be"),
        (["--videos", "/nowhere"], 1, "does not exist"),
        (["--list", "/nowhere.txt"], 1, "cannot read the list /nowhere.txt"),
        (["--classes", "/nowhere.txt"], 1, "cannot read the list /nowhere.txt"),
        (["--out", "/proc/none"], 1, "cannot write to /proc/none"),
    ],
)
def test_a_mistake_gets_one_clear_line(videos, tmp_path, change, code, message):
    done = run(*options(videos, tmp_path), *change, code=code)
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("listing", "message"),
    [("", "list is empty"), ("x.mp4 9\n", "label 9"), ("x.mp4 dancing\n", "line 1.*dancing")],
)
def test_a_bad_list_gets_one_clear_line(videos, tmp_path, listing, message):
    path = tmp_path / "list.txt"
    path.write_text(listing)
    arguments = [*options(videos, tmp_path), "--classes", videos / "classes.txt", "--list", path]
    (line,) = run(*arguments, code=1).stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


def test_when_no_video_is_good_it_has_failed(videos, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("broken.mp4 0\n")
    run(*options(videos, tmp_path / "out"), "--list", path, code=1)


def test_verify_without_a_set(tmp_path):
    assert "contains no split" in run("verify", tmp_path, code=1).stderr


def test_help_shows_exit_codes_commands_and_the_options_of_build():
    text = run("--help").stdout
    assert "exit codes" in text
    for name in ("build", "verify", "merge", "reindex", "--dataset", "--short-side", "--task"):
        assert name in text


@pytest.mark.parametrize("command", ["build", "verify", "merge", "reindex"])
def test_every_command_has_its_own_help(command):
    assert f"usage: shard.py {command}" in run(command, "--help").stdout


def test_build_may_be_named(videos, tmp_path):
    assert "4 samples" in run("build", *options(videos, tmp_path)).stdout


@pytest.mark.parametrize("words", [[], ["no_such_command"], ["verify"], ["--out", "x"]])
def test_an_incomplete_command_line_is_wrong_usage(words):
    assert "usage: shard.py" in run(*words, code=2).stderr


def kinetics(folder: Path) -> tuple[Path, Path]:
    videos = folder / "k400"
    lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
    for number in range(6):
        name, label = f"abcdefghij{number}", f"doing thing {number % 3}"
        lines.append(f"{label},{name},{number},{number + 10},train,0")
        if number != 5:
            suffix = ("mp4", "mkv", "webm")[number % 3]
            codec = "libvpx-vp9" if suffix == "webm" else "libx264"
            path = videos / label / f"{name}_{number:06d}_{number + 10:06d}.{suffix}"
            write_video(path, moving_squares(8, seed=number), codec=codec, options={})
    path = folder / "train.csv"
    path.write_text("\n".join(lines) + "\n")
    return videos, path


@pytest.mark.parametrize("dataset", ["kinetics400", "mini-kinetics200"])
def test_kinetics_end_to_end(tmp_path, dataset):
    videos, listing = kinetics(tmp_path)
    out = tmp_path / "out"
    done = run("--dataset", dataset, "--videos", videos, "--list", listing, "--split", "train",
               "--out", out, code=3)  # fmt: skip
    assert "1 missing" in done.stdout
    split = open_split(out, "train")
    assert len(split) == 5
    assert set(split.samples["fps"]) == {30.0}
    assert split.classes == ("doing thing 0", "doing thing 1", "doing thing 2")
    assert "doing thing 2,2,1,1,0,0" in (out / "train/classes.csv").read_text()
    effective = (out / "train/effective.csv").read_text().splitlines()
    assert len(effective) == 6
    assert effective[1].startswith("abcdefghij0_000000,0,doing thing 0")


def test_something_end_to_end(tmp_path):
    for name in ("7", "8"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number, frame in enumerate(moving_squares(14), 1):
            (tmp_path / "frames" / name / f"{number:05d}.jpg").write_bytes(jpeg(frame))
    (tmp_path / "labels.csv").write_text("Moving [something]\nHolding [something]\n")
    (tmp_path / "train.csv").write_text("7;Holding [something]\n8;Moving [something]\n")
    run("--dataset", "somethingv1", "--videos", tmp_path / "frames", "--list",
        tmp_path / "train.csv", "--classes", tmp_path / "labels.csv", "--split", "train",
        "--out", tmp_path / "out")  # fmt: skip
    split = open_split(tmp_path / "out", "train")
    for i in range(2):
        row = split.samples[i]
        assert (row["fps"], row["num_frames"]) == (12, 14)
        assert row["label"] == {"7": 1, "8": 0}[split.key(i)]
        data = split.tar_path(i).read_bytes()
        for t in range(14):
            where = split.frames[row["first_frame"] + t]
            start = row["offset"] + where["offset"]
            original = tmp_path / "frames" / split.key(i) / f"{t + 1:05d}.jpg"
            assert data[start : start + where["size"]] == original.read_bytes()


def test_activitynet_end_to_end(tmp_path):
    write_video(tmp_path / "videos/v_one.mp4", moving_squares(100))
    marks = [{"segment": [0.4, 1.2], "label": "B"}, {"segment": [2, 3.6], "label": "A"}]
    database = {"one": {"subset": "training", "duration": 4.0, "annotations": marks}}
    (tmp_path / "anet.json").write_text(json.dumps({"database": database}))
    arguments = ["--dataset", "activitynet", "--videos", tmp_path / "videos", "--list",
                 tmp_path / "anet.json", "--split", "train"]  # fmt: skip
    run(*arguments, "--out", tmp_path / "whole")
    whole = open_split(tmp_path / "whole", "train")
    assert whole.labels(0) == (1, 0)
    assert whole.samples["num_frames"][0] == 100
    run(*arguments, "--out", tmp_path / "cut", "--segments", "labelled")
    cut = open_split(tmp_path / "cut", "train")
    found = {cut.key(i): (cut.samples["num_frames"][i], cut.labels(i)) for i in range(2)}
    assert found == {"one_000": (20, (1,)), "one_001": (40, (0,))}
    wrong = run(*arguments, "--out", tmp_path / "x", "--segments", "half", code=2)
    assert "segments must be whole, labelled" in wrong.stderr


def test_real_untrimmed_video(tmp_path):
    real = ROOT.parent / "shared/data/overhead_untrimmed"
    if not real.is_dir():
        pytest.skip(f"no real video at {real}")
    run("--dataset", "activitynet", "--videos", real / "videos", "--list",
        real / "annotations.json", "--split", "val", "--out", tmp_path,
        "--segments", "labelled")  # fmt: skip
    split = open_split(tmp_path, "val")
    database = json.loads((real / "annotations.json").read_text())["database"]
    (entry,) = [e for e in database.values() if e["subset"] == "validation"]
    assert len(split) == len(entry["annotations"])
    for i in range(len(split)):
        start, end = entry["annotations"][int(split.key(i)[-3:])]["segment"]
        assert abs(split.samples["num_frames"][i] - (end - start) * 25) <= 1


def test_too_few_descriptors_are_one_line_and_no_verdict(videos, tmp_path):
    words = [sys.executable, ROOT / "tools/shard.py", *options(videos, tmp_path)]
    line = 'ulimit -n 10; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *map(str, words)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "this process may have 10 (RLIMIT_NOFILE" in errors[0]
    assert "Traceback" not in done.stderr
