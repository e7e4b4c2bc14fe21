"""A remembered header must never hide a fault."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.read.jpeg_header import HEADER, JpegHeaders


def encoded(height: int = 24, width: int = 40, seed: int = 0, **options: object) -> np.ndarray:
    """A JPEG of noise, uint8."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def test_sound_frames_pass_first_and_again():
    headers = JpegHeaders()
    for seed in range(3):
        assert headers.fault(encoded(seed=seed), 24, 40) is None


def test_the_size_counts_although_the_header_is_known():
    headers = JpegHeaders()
    data = encoded()
    assert headers.fault(data, 24, 40) is None
    assert headers.fault(data, 40, 24) == "40x24 pixels, the index says 24x40"
    assert headers.fault(data, 0, 0) == "40x24 pixels, the index says 0x0"
    assert headers.fault(data, 24, 40) is None


def test_nothing_is_known_at_first():
    assert JpegHeaders().fault(np.array([0xFF, 0xD8], np.uint8), 0, 0) is not None
    assert JpegHeaders().fault(np.zeros(0, np.uint8), 0, 0) == "not a JPEG"


@pytest.mark.parametrize("byte", [0x00, 0xC0, 0xFF])
def test_every_change_of_a_header_is_judged_as_if_nothing_were_known(byte):
    sound = encoded()
    scan = sound.tobytes().index(b"\xff\xda")
    judged = set()
    for at in range(scan + 4):
        hurt = sound.copy()
        hurt[at] = byte
        headers = JpegHeaders()
        assert headers.fault(sound, 24, 40) is None
        fault = headers.fault(hurt, 24, 40)
        assert fault == JpegHeaders().fault(hurt, 24, 40)
        assert headers.fault(sound, 24, 40) is None
        judged.add(fault is None)
    assert judged == {True, False}


def test_a_frame_that_is_cut_inside_a_known_header():
    headers, sound = JpegHeaders(), encoded()
    assert headers.fault(sound, 24, 40) is None
    for length in (0, 1, 2, 20, sound.tobytes().index(b"\xff\xda") + 2):
        assert headers.fault(sound[:length], 24, 40) is not None


def test_a_header_longer_than_most():
    headers, long = JpegHeaders(), encoded(comment=b"x" * (2 * HEADER))
    assert headers.fault(long, 24, 40) is None
    assert headers.fault(long, 24, 41) == "40x24 pixels, the index says 41x24"
