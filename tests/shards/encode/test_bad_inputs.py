"""Every input has a verdict, and no damaged frame counts as a good one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from shards import ShardSettings, Source, build_split, open_split
from shards.errors import BadVideo
from tests.shards.media import moving_squares, pack_one, psnr, write_video
from tests.shards.mutations import mutate


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    return write_video(path, moving_squares(50, (160, 120)))


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def avi_with_count(path: Path, count: int) -> None:
    """An AVI of 20 frames whose headers claim `count`."""
    write_video(path, moving_squares(20, (96, 64)), codec="mpeg4", options={})
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16
    data[at : at + 4] = count.to_bytes(4, "little")
    at = data.index(b"strh") + 8 + 32
    data[at : at + 4] = count.to_bytes(4, "little")
    path.write_bytes(bytes(data))


def make_bad(kind: str, path: Path, good: Path) -> None:
    data = good.read_bytes()
    moov = data.index(b"moov") - 4
    makers = {
        "cut": lambda: path.write_bytes(data[: len(data) // 2]),
        "no moov": lambda: path.write_bytes(data[:moov]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("this is not a video\n" * 100),
        "play list": lambda: path.write_text(f"ffconcat version 1.0\nfile '{good}'\n"),
        "noise": lambda: path.write_bytes(np.random.default_rng(0).bytes(50_000)),
        "sound": lambda: audio_only(path),
        "hole": lambda: path.write_bytes(data[:3000] + bytes(2500) + data[5500:]),
        "count too high": lambda: avi_with_count(path, 60),
        "pipe": lambda: os.mkfifo(path),
        "missing": lambda: None,
    }
    makers[kind]()


@pytest.mark.parametrize(
    ("kind", "suffix", "verdicts"),
    [
        ("cut", "mp4", {"unreadable"}),
        ("no moov", "mp4", {"unreadable"}),
        ("empty", "mp4", {"empty"}),
        ("text", "mp4", {"unreadable"}),
        ("play list", "mp4", {"unreadable"}),
        ("noise", "mp4", {"unreadable"}),
        ("sound", "mp4", {"no_video"}),
        ("hole", "mp4", {"corrupt"}),
        ("count too high", "avi", {"truncated"}),
        ("pipe", "mp4", {"not_a_file"}),
        ("missing", "mp4", {"missing"}),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, good, kind, suffix, verdicts):
    path = tmp_path / f"bad.{suffix}"
    make_bad(kind, path, good)
    with pytest.raises(BadVideo) as caught:
        pack_one(tmp_path, path)
    assert caught.value.kind in verdicts
    assert caught.value.reason
    assert str(tmp_path) not in caught.value.reason  # verdicts are the same on every machine


def test_a_wrong_suffix_does_not_matter(tmp_path, good):
    path = tmp_path / "video.txt"
    shutil.copy(good, path)
    assert pack_one(tmp_path, path).metadata["frames"] == 50


def test_a_count_too_low_in_the_header_loses_nothing(tmp_path):
    avi_with_count(tmp_path / "x.avi", 15)
    assert pack_one(tmp_path, tmp_path / "x.avi").metadata["frames"] == 20


def test_one_frame_is_a_video(tmp_path):
    path = write_video(tmp_path / "x.mp4", moving_squares(1))
    assert pack_one(tmp_path, path).metadata["frames"] == 1


def test_a_truncated_webm_is_noticed_by_its_length(tmp_path):
    path = write_video(tmp_path / "x.webm", moving_squares(100), codec="libvpx-vp9")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadVideo, match=r"truncated|corrupt"):
        pack_one(tmp_path, path)


def test_the_good_part_of_a_damaged_video_may_be_kept(tmp_path):
    frames = moving_squares(100, (160, 120))
    path = write_video(tmp_path / "x.mp4", frames, options={"g": "10", "crf": "18"})
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat"), data.index(b"moov")
    middle = (start + end) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(bytes(data))
    with pytest.raises(BadVideo, match="good frames before") as caught:
        pack_one(tmp_path, path)
    count = int(re.search(r"\((\d+) good", caught.value.reason)[1])
    assert 10 < count < 90
    packed = pack_one(tmp_path, path, keep_partial=10)
    assert packed.metadata["frames"] == count
    assert packed.metadata["notes"][0].startswith("partial")
    with pytest.raises(BadVideo):
        pack_one(tmp_path, path, keep_partial=95)


def test_frames_before_the_first_keyframe_are_left_out(tmp_path):
    frames = moving_squares(30, (160, 120))
    path = write_video(tmp_path / "x.mp4", frames, options={"g": "10", "bf": "0", "crf": "12"})
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as container, av.open(str(cut), "w") as output:
        copied = output.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(p for p in container.demux(video=0) if p.size):
            if number >= 4:
                packet.stream = copied
                output.mux(packet)
    packed = pack_one(tmp_path, cut, quality=2)
    assert packed.metadata["notes"] == ["6 packets before the first keyframe left out"]
    stored = packed.rgb()
    assert len(stored) == 20
    assert psnr(stored[0], frames[10]) > 30


def test_a_video_longer_than_a_sample_may_be_is_refused_with_the_remedy(tmp_path, good):
    with pytest.raises(BadVideo, match="segments"):
        pack_one(tmp_path, good, max_seconds=1.0)


def build(folder: Path, paths: list[Path], **settings):
    sources = [Source(path, 0, path.stem, name=path.name) for path in paths]
    return build_split(sources, folder, "x", ["x"], ShardSettings(**settings))


def test_a_frame_larger_than_the_memory_limit_is_refused(tmp_path, good):
    frames = [np.zeros((6000, 8000, 3), np.uint8)]
    big = write_video(tmp_path / "big.mkv", frames, codec="ffv1", pix_fmt="yuv444p", options={})
    report = build(tmp_path / "out", [big, good], workers=1, memory_mb=512)
    assert report.ok == 1
    assert [v["kind"] for v in report.refused] == ["memory"]


def test_every_odd_file_has_its_verdict(real, tmp_path):
    paths = sorted((real / "odd").iterdir())
    sources = [
        Source(path, 0, re.sub(r"\W", "_", path.name), name=path.name) for path in paths
    ]  # fmt: skip
    report = build_split(sources, tmp_path, "odd", ["x"], ShardSettings())
    found = {v["source"]: v["kind"] if v["status"] == "refused" else "ok" for v in report.verdicts}
    refused = {name: kind for name, kind in found.items() if kind != "ok"}
    assert len(found) == 29
    assert refused == {
        "chunk_out_of_range.mp4": "unreadable",
        "decord_corrupted.mp4": "corrupt",
        "empty.mp4": "empty",
        "not_a_video.mp4": "unreadable",
        "truncated_60pct.avi": "truncated",
        "truncated_no_moov.mp4": "unreadable",
        "video_1.avi": "too_small",
    }
    split = open_split(tmp_path, "odd")
    sizes = {
        split.key(i): (int(r["width"]), int(r["height"]), int(r["num_frames"]))
        for i, r in enumerate(split.samples)
    }
    assert sizes["decord_video_0_mov"][:2] == sizes["decord_video_180_mov"][:2] == (454, 256)
    assert sizes["decord_video_90_mov"][:2] == (256, 454)
    assert sizes["sar_2x1_mp4"][:2] == (910, 256)
    assert sizes["R6llTwEh07w_mp4"] == (340, 256, 303)
    assert sizes["test_video_66x50_mov"][:2] == (66, 50)


STRAIGHT = ("R6llTwEh07w.mp4", "smth-smth-1.webm", "decord_video_90.mov", "sar_2x1.mp4",
            "torchcodec_h264_10bits.mp4", "fixture.3gp")  # fmt: skip


@pytest.mark.parametrize("name", STRAIGHT)
def test_stored_frames_are_a_straight_ffmpeg_conversion(real, tmp_path, name):
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg command")
    packed = pack_one(tmp_path, real / "odd" / name, quality=2)
    width, height = packed.metadata["width"], packed.metadata["height"]
    scale = f"scale={width}:{height}:flags=bicubic:out_color_matrix=bt601:out_range=pc"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(real / "odd" / name), "-vf"]
    command += [f"{scale},format=yuvj420p,format=gray", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    straight = np.frombuffer(raw, np.uint8).reshape(-1, height, width)
    with av.open(str(_written(tmp_path, packed.mp4))) as container:
        stored = [f.to_ndarray()[:height] for f in container.decode(video=0)]
    assert len(stored) == len(straight)
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(stored, straight, strict=True)]
    assert 10 * np.log10(255**2 / np.mean(errors)) > 40


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "stored.mp4"
    path.write_bytes(data)
    return path


# ---- mutations

CODECS = {
    "libx264": "mp4", "libx265": "mp4", "mpeg4": "avi", "libvpx-vp9": "webm", "libvpx": "mkv",
    "mjpeg": "mov", "mpeg2video": "ts",
}  # fmt: skip
DAMAGE = re.compile(r"corrupt|conceal|error while decoding|invalid data|missing ref", re.IGNORECASE)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Path]:
    """Files to damage: one of each codec made here, and real ones where there are any."""
    folder = tmp_path_factory.mktemp("seeds")
    paths = []
    for codec, suffix in CODECS.items():
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        path = folder / f"{codec}.{suffix}"
        frames = moving_squares(12, (128, 96))
        paths.append(write_video(path, frames, codec=codec, options={}, pix_fmt=pix_fmt))
    real = Path(__file__).resolve().parents[4] / "shared" / "data" / "odd"
    names = ("realshort.mp4", "smth-smth-1.webm", "torchcodec_av1_video.mkv", "fixture.3gp",
             "TrumanShow_wave_f_nm_np1_fr_med_26.avi", "mmaction2_demo.mp4")  # fmt: skip
    return paths + [real / name for name in names if (real / name).is_file()]


def check_mutations(seeds: list[Path], folder: Path, numbers: range) -> None:
    paths = []
    for number in numbers:
        one, other = seeds[number % len(seeds)], seeds[(number * 3 + 1) % len(seeds)]
        path = folder / f"m{number:04d}{one.suffix}"
        path.write_bytes(mutate(one.read_bytes(), other.read_bytes(), number))
        paths.append(path)
    report = build(folder / "out", paths, short_side=64, cpu_seconds=60)
    assert len(report.verdicts) == len(paths)
    assert [v for v in report.refused if v["status"] != "refused"] == []  # no hang, no bug of ours
    for verdict in report.with_status("ok"):
        assert damage_seen_by_ffmpeg(folder / verdict["source"]) == "", verdict["source"]


def damage_seen_by_ffmpeg(path: Path) -> str:
    """What the ffmpeg command says of damaged pictures in the file; "" for nothing."""
    if not shutil.which("ffmpeg"):
        return ""
    command = ["ffmpeg", "-nostdin", "-v", "warning", "-i", str(path), "-map", "0:v:0"]
    done = subprocess.run([*command, "-f", "null", "-"], capture_output=True)
    lines = done.stderr.decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if DAMAGE.search(line))


def test_fifty_mutations_have_a_verdict_each(seeds, tmp_path):
    check_mutations(seeds, tmp_path, range(50))


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_mutations_have_a_verdict_each(seeds, tmp_path, hundred):
    check_mutations(seeds, tmp_path, range(100 * hundred, 100 * hundred + 100))
