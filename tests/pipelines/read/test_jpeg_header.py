"""JPEG headers: valid ones pass, and the remembered one hides no fault."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.read.jpeg_header import HEADER, JpegHeaderChecker


def encoded(height: int = 24, width: int = 40, seed: int = 0, **options: object) -> np.ndarray:
    """A JPEG of noise, uint8."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def test_valid_frames_pass_repeatedly():
    headers = JpegHeaderChecker()
    for seed in range(3):
        assert headers.find_fault(encoded(seed=seed), 24, 40) is None


def test_the_size_is_checked_for_a_remembered_header():
    headers = JpegHeaderChecker()
    data = encoded()
    assert headers.find_fault(data, 24, 40) is None
    assert headers.find_fault(data, 40, 24) == "40x24 pixels, but the index has 24x40"
    assert headers.find_fault(data, 0, 0) == "40x24 pixels, but the index has 0x0"
    assert headers.find_fault(data, 24, 40) is None


def test_a_new_checker_accepts_no_fragment():
    assert JpegHeaderChecker().find_fault(np.array([0xFF, 0xD8], np.uint8), 0, 0) is not None
    assert JpegHeaderChecker().find_fault(np.zeros(0, np.uint8), 0, 0) == "not a JPEG"


@pytest.mark.parametrize("byte", [0x00, 0xC0, 0xFF])
def test_a_changed_header_is_checked_as_by_a_new_checker(byte):
    valid = encoded()
    scan = valid.tobytes().index(b"\xff\xda")
    verdicts = set()
    for at in range(scan + 4):
        damaged = valid.copy()
        damaged[at] = byte
        headers = JpegHeaderChecker()
        assert headers.find_fault(valid, 24, 40) is None
        fault = headers.find_fault(damaged, 24, 40)
        assert fault == JpegHeaderChecker().find_fault(damaged, 24, 40)
        assert headers.find_fault(valid, 24, 40) is None
        verdicts.add(fault is None)
    assert verdicts == {True, False}


def test_a_frame_cut_off_inside_a_remembered_header():
    headers, valid = JpegHeaderChecker(), encoded()
    assert headers.find_fault(valid, 24, 40) is None
    for length in (0, 1, 2, 20, valid.tobytes().index(b"\xff\xda") + 2):
        assert headers.find_fault(valid[:length], 24, 40) is not None


def test_a_header_of_unusual_length():
    headers, long = JpegHeaderChecker(), encoded(comment=b"x" * (2 * HEADER))
    assert headers.find_fault(long, 24, 40) is None
    assert headers.find_fault(long, 24, 41) == "40x24 pixels, but the index has 41x24"
