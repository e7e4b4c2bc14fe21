"""Clips cut without decoding out of open groups of pictures: whole, and equal to the uncut file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from shards import Source
from shards.encode.probe import probe
from shards.encode.strict_decoder import StrictDecoder
from shards.encode.unshown import UnshownErrors, nal_headers
from tests.shards.media import moving_squares, pack_one, write_video

OPEN = {
    "h264": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=20:scenecut=0:b-adapt=0:"
                                                   "b-pyramid=normal:log-level=-1"}),
    "hevc": ("libx265", {"x265-params": "open-gop=1:keyint=20:min-keyint=20:scenecut=0:bframes=4:"
                                        "log-level=none:pools=none"}),
}  # fmt: skip


@pytest.fixture(scope="module", params=OPEN)
def uncut(request, tmp_path_factory) -> Path:
    """60 frames in groups of 20, which are open: each refers to the one before."""
    codec, options = OPEN[request.param]
    frames = moving_squares(60)
    noise = np.random.default_rng(0).integers(0, 9, (60, 64, 96, 1), np.uint8)
    frames = [frame + extra for frame, extra in zip(frames, noise, strict=True)]
    path = tmp_path_factory.mktemp("uncut") / "x.mp4"
    return write_video(path, frames, codec=codec, options=options)


def cut(path: Path, target: Path, first: float, hide: float | None = None) -> Path:
    """Copy the packets from the keyframe at or before `first` (seconds) on.

    hide: an edit list hides what is before this time; None for no edit list.
    """
    with av.open(str(path)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        copied = output.add_stream_from_template(stream)
        container.seek(int(first / stream.time_base), stream=stream, backward=True)
        origin = int((first if hide is None else hide) / stream.time_base)
        for packet in container.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - origin, packet.dts - origin
                packet.stream = copied
                output.mux(packet)
    return target


def decode(path: Path) -> tuple[list[bytes], str]:
    """The frames of a file as the strict decoder gives them, and its verdict."""
    decoder = StrictDecoder(path, probe(path))
    frames = [frame.to_ndarray().tobytes() for _, frame in decoder.frames(None, None)]
    return frames, decoder.fault


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("first", [0.8, 1.6])
def test_a_cut_at_a_keyframe_keeps_every_frame_that_can_be_shown(uncut, tmp_path, first, suffix):
    everything, fault = decode(uncut)
    assert (len(everything), fault) == (60, "")
    frames, fault = decode(cut(uncut, tmp_path / f"x.{suffix}", first))
    assert fault == ""
    assert frames == everything[int(first * 25) :]


@pytest.mark.parametrize("first", [0.52, 1.12, 1.36, 1.64])
def test_an_edit_list_hides_the_frames_before_the_cut(uncut, tmp_path, first):
    everything, _ = decode(uncut)
    path = cut(uncut, tmp_path / "x.mp4", first, hide=first)
    frames, fault = decode(path)
    assert fault == ""
    assert frames == everything[round(first * 25) :]
    assert pack_one(tmp_path, path).metadata["frames"] == len(frames)


def test_segments_of_an_open_file_are_its_frames(uncut, tmp_path):
    everything, _ = decode(uncut)
    decoder = StrictDecoder(uncut, probe(uncut))
    for start, end in ((0.84, 1.2), (1.0, 2.0), (1.68, 2.4)):
        frames = [frame.to_ndarray().tobytes() for _, frame in decoder.frames(start, end)]
        assert decoder.fault == ""
        assert frames == everything[round(start * 25) : round(end * 25)]
    source = Source(uncut, 0, "k", start=1.0, end=2.0)
    assert pack_one(tmp_path, source).metadata["frames"] == 25


def test_an_edit_list_may_end_early(uncut, tmp_path):
    """Frames behind the end of the edit list are there; the header counts them."""
    everything, _ = decode(uncut)
    data = bytearray(uncut.read_bytes())
    at = data.index(b"elst") + 12  # version, flags and number of entries come first
    length = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (length // 4).to_bytes(4, "big")
    path = tmp_path / "x.mp4"
    path.write_bytes(bytes(data))
    frames, fault = decode(path)
    assert fault == ""
    assert 14 <= len(frames) <= 16
    assert frames == everything[: len(frames)]


def test_damage_in_what_is_shown_is_a_verdict(uncut, tmp_path):
    path = cut(uncut, tmp_path / "x.mp4", 1.36, hide=1.36)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.is_discard) for p in container.demux(video=0) if p.size]
    size, position = max((size, pos) for pos, size, hidden in packets if not hidden)
    data = bytearray(path.read_bytes())
    data[position : position + size] = b"\xff" * size
    path.write_bytes(bytes(data))
    frames, fault = decode(path)
    assert fault != ""
    assert len(frames) < len(packets)


class FakePacket:
    """A packet of an unknown codec, in which every frame may be a reference."""

    def __init__(self, pts: int, kind: str = "") -> None:
        self.pts, self.is_keyframe, self.is_discard = pts, "k" in kind, "h" in kind
        self.error = "bad" if "x" in kind else ""


def verdicts(*packets: tuple[int, str]) -> list[str]:
    """Verdicts on packets (display time, kind: k keyframe, h hidden, x with an error)."""
    errors, found = UnshownErrors("other"), []
    for packet in (FakePacket(*arguments) for arguments in packets):
        errors.advance(packet)
        found.append(errors.verdict(packet, packet.error))
    return found


def test_errors_count_where_they_can_show():
    # Leading pictures of the first keyframe are never shown, and nothing shown refers to them.
    assert verdicts((5, "k"), (3, "x"), (4, ""), (6, "")) == [""] * 4
    # Without hidden packets every error counts.
    assert verdicts((0, "k"), (2, ""), (1, "x")) == ["", "", "bad"]
    # A hidden frame that is damaged spoils the shown ones behind it, up to the next keyframe ...
    assert verdicts((0, "kh"), (1, "hx"), (2, "h"), (3, "")) == ["", "", "", "bad"]
    assert verdicts((0, "kh"), (1, "hx"), (4, "k"), (5, "")) == [""] * 4
    # ... and its leading pictures.
    assert verdicts((0, "kh"), (1, "hx"), (4, "k"), (3, ""), (5, "")) == ["", "", "", "bad", ""]
    # A hidden leading picture spoils the leading ones, not those behind the keyframe.
    hidden = [(0, "kh"), (1, "h"), (5, "k"), (2, "hx")]
    assert verdicts(*hidden, (6, "")) == [""] * 5
    assert verdicts(*hidden, (4, "")) == ["", "", "", "", "bad"]


def test_references_are_read_from_the_headers_of_the_pictures(uncut):
    """Nothing refers to a picture that FFmpeg can leave out without changing another."""
    codec = probe(uncut).codec
    with av.open(str(uncut)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    with_codes = [as_annex_b(data) for data in packets]
    headers = [nal_headers(data, codec) for data in packets]
    assert headers == [nal_headers(data, codec) for data in with_codes]
    used = [all(reference for _, reference in pictures) for pictures in headers]
    short = b"\0\0\1\x01" + b"\x41" * 257  # a length that looks like a start code
    assert nal_headers(short, "h264") == [(1, True)]
    assert 10 < used.count(True) < 50
    everything, _ = decode(uncut)
    left = decode_packets(uncut, [data for data, keep in zip(packets, used, strict=True) if keep])
    assert len(left) == used.count(True)
    assert set(left) <= set(everything)


def as_annex_b(data: bytes) -> bytes:
    units, position = [], 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        units.append(b"\0\0\0\1" + data[position + 4 : position + 4 + size])
        position += 4 + size
    return b"".join(units)


def decode_packets(path: Path, packets: list[bytes]) -> list[bytes]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        frames = [f for data in packets for f in context.decode(av.Packet(data))]
        return [f.to_ndarray().tobytes() for f in [*frames, *context.decode(None)]]


def test_a_real_cut_has_the_frames_of_the_uncut_file(real):
    videos = real / "reports" / "videos"
    if not videos.is_dir():
        pytest.skip(f"no {videos}")
    everything, _ = decode(videos / "og_full.mp4")
    frames, fault = decode(videos / "og_cut_1.5.mp4")
    assert fault == ""
    assert frames == everything[-62:]
