"""AVIs whose recorder dropped frames are whole, and last as long as in FFmpeg."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shards.encode.avi import count_frames
from shards.errors import BadVideo
from tests.shards.avi_files import encode, n_vop, pack_b_frames, write_avi
from tests.shards.media import Packed, moving_squares, pack_one, psnr

SIZE = (96, 64)
FOURCC = {"mjpeg": b"MJPG", "mpeg4": b"XVID", "msmpeg4": b"DIV3"}
# Positions of dropped frames: single ones, a run, and one as long as the rest of the video.
DROPS = {"few": [3, 10, 11, 12], "half": list(range(8, 28))}


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return moving_squares(21, SIZE)


def with_drops(chunks: list[bytes], drops: list[int], dropped: bytes | None) -> list:
    """The chunks with dropped frames at these positions of the result."""
    chunks = list(chunks)
    for position in drops:
        chunks.insert(position, dropped)
    return chunks


def check_against_ffmpeg(packed: Packed, path: Path, size: tuple[int, int] = SIZE) -> None:
    """Compare the stored frames with those that FFmpeg shows at 25 a second."""
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg command")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-vf", "fps=25,format=rgb24"]
    done = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True)
    shown = np.frombuffer(done.stdout, np.uint8).reshape(-1, size[1], size[0], 3)
    stored = packed.rgb()
    assert packed.metadata["fps"] == "25"
    assert len(stored) == len(shown)
    assert min(psnr(a, b) for a, b in zip(stored, shown, strict=True)) > 30


@pytest.mark.parametrize("drops", DROPS)
@pytest.mark.parametrize("codec", FOURCC)
def test_empty_chunks_repeat_the_frame_before(tmp_path, frames, codec, drops):
    chunks = with_drops(encode(frames, codec), DROPS[drops], b"")
    path = write_avi(tmp_path / "x.avi", chunks, FOURCC[codec], SIZE)
    packed = pack_one(tmp_path, path, quality=2)
    assert packed.metadata["frames"] == len(chunks)
    check_against_ffmpeg(packed, path)


@pytest.mark.parametrize("drops", DROPS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_b_frames_keep_their_order_around_dropped_frames(tmp_path, frames, packed, drops):
    chunks = encode(frames, "mpeg4", bf="1", b_strategy="0")
    chunks = with_drops(pack_b_frames(chunks) if packed else chunks, DROPS[drops], b"")
    path = write_avi(tmp_path / "x.avi", chunks, b"XVID", SIZE)
    check_against_ffmpeg(pack_one(tmp_path, path, quality=2), path)


def test_packets_without_a_picture_repeat_the_frame_before(tmp_path, frames):
    chunks = encode(frames, "mpeg4", bf="0", g="100")
    for position in DROPS["few"]:
        chunks.insert(position, n_vop(position))
    path = write_avi(tmp_path / "x.avi", chunks, b"XVID", SIZE)
    packed = pack_one(tmp_path, path, quality=2)
    assert packed.metadata["frames"] == len(chunks)
    check_against_ffmpeg(packed, path)


@pytest.mark.parametrize("dropped", [b"", None], ids=["empty chunks", "index only"])
@pytest.mark.parametrize("drops", [[0, 1, 2], [21, 22, 23, 24, 25]], ids=["start", "end"])
def test_frames_may_be_dropped_at_both_ends(tmp_path, frames, drops, dropped):
    chunks = with_drops(encode(frames, "mjpeg"), drops, dropped)
    path = write_avi(tmp_path / "x.avi", chunks, b"MJPG", SIZE)
    packed = pack_one(tmp_path, path, quality=2)
    assert packed.metadata["frames"] == 21
    check_against_ffmpeg(packed, path)


def test_missing_bytes_are_a_truncation(tmp_path, frames):
    chunks = with_drops(encode(frames, "mjpeg"), DROPS["few"], b"")
    path = write_avi(tmp_path / "x.avi", chunks, b"MJPG", SIZE)
    assert count_frames(path, 0) == len(chunks)
    data = path.read_bytes()
    for share in (0.5, 0.8):
        path.write_bytes(data[: int(share * len(data))])
        assert count_frames(path, 0) is None
        with pytest.raises(BadVideo) as caught:
            pack_one(tmp_path, path)
        assert caught.value.kind == "truncated"


def test_a_real_recording_with_dropped_frames(real, tmp_path):
    path = real / "reports" / "videos" / "dropped_mjpeg.avi"
    if not path.is_file():
        pytest.skip(f"no {path}")
    packed = pack_one(tmp_path, path)
    assert (packed.metadata["frames"], packed.metadata["fps"]) == (100, "25")
    check_against_ffmpeg(packed, path, (160, 120))
