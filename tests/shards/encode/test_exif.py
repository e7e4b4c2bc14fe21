"""JPEG frames with an EXIF orientation: what is stored is upright and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards import Source
from shards.encode.jpeg_folder import read_exif_orientation, read_jpeg_header
from shards.errors import BadVideo
from tests.shards.media import jpeg, moving_squares, pack_one, psnr

QUARTERS = {1: 0, 3: 2, 6: -1, 8: 1}  # turns against the clock that make a picture upright


def with_exif(data: bytes, orientation: int, order: str = "little") -> bytes:
    """A JPEG with an EXIF block after its start."""

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)  # type: ignore[arg-type]

    entry = number(0x112, 2) + number(3, 2) + number(1, 4) + number(orientation, 2) + bytes(2)
    tiff = (b"II" if order == "little" else b"MM") + number(42, 2) + number(8, 4)
    block = b"Exif\0\0" + tiff + number(1, 2) + entry + bytes(4)
    return data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]


def make_folder(path: Path, frames: list[np.ndarray], orientation: int) -> Source:
    path.mkdir()
    for number, frame in enumerate(frames, 1):
        (path / f"{number:03d}.jpg").write_bytes(with_exif(jpeg(frame), orientation))
    return Source(path, 0, "k", name=path.name, fps="12")


@pytest.mark.parametrize("orientation", QUARTERS)
@pytest.mark.parametrize("settings", [{}, {"codec": "vp9", "quality": 10}, {"fps": "6"}])
def test_turned_pictures_are_stored_upright(tmp_path, orientation, settings):
    frames = moving_squares(4, (176, 144))
    packed = pack_one(tmp_path, make_folder(tmp_path / "x", frames, orientation), **settings)
    stored = packed.rgb()
    assert len(stored) == (3 if "fps" in settings else 4)
    assert psnr(stored[0], np.rot90(frames[0], QUARTERS[orientation])) > 30
    if "codec" not in settings:
        untouched = orientation == 1 and not settings
        assert packed.metadata["remuxed"] == untouched
        assert all(read_jpeg_header(packed.jpeg(t)).orientation == 1 for t in range(len(stored)))


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
def test_mirrored_pictures_are_refused(tmp_path, orientation):
    with pytest.raises(BadVideo, match="mirrored"):
        pack_one(tmp_path, make_folder(tmp_path / "x", moving_squares(2), orientation))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_in_both_byte_orders(order, orientation):
    data = with_exif(jpeg(moving_squares(1)[0]), orientation, order)
    assert read_jpeg_header(data).orientation == orientation


@pytest.mark.parametrize(
    "block", [b"", b"II", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"]
)
def test_an_invalid_block_is_upright(block):
    assert read_exif_orientation(block) == 1
