"""The settings of a shard set: wrong values are named with their range."""

from __future__ import annotations

import pytest

from shards import ShardSettings, ShardUsageError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codec": "av1"}, "codec must be one of mjpeg, h264, hevc, vp9, got 'av1'"),
        ({"short_side": 8}, "short_side must be between 16 and 4096, got 8"),
        ({"codec": "h264", "short_side": 250}, "short_side must be a multiple of 16 for h264"),
        ({"fps": "fast"}, 'fps must be "native" or a rate'),
        ({"fps": "1/0"}, 'fps must be "native" or a rate'),
        ({"fps": "-5"}, 'fps must be "native" or a rate'),
        ({"gop": 0}, "gop must be between 1 and 255, got 0"),
        ({"quality": 1}, "quality must be between 2 and 31 for mjpeg, got 1"),
        ({"quality": 40}, "quality must be between 2 and 31 for mjpeg, got 40"),
        ({"quality": 52, "codec": "h264"}, "quality must be between 1 and 51 for h264, got 52"),
        ({"quality": 64, "codec": "vp9"}, "quality must be between 1 and 63 for vp9, got 64"),
        ({"keep_partial": -1}, "keep_partial must be at least 0, got -1"),
        ({"max_seconds": 0.0}, "max_seconds must be greater than 0, got 0.0"),
        ({"tar_samples": 0}, "tar_samples must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"cpu_seconds": 0}, "cpu_seconds must be at least 1, got 0"),
        ({"memory_mb": 1}, "memory_mb must be at least 512, got 1"),
    ],
)
def test_wrong_settings_are_named_with_their_range(wrong, message):
    with pytest.raises(ShardUsageError, match=message):
        ShardSettings(**wrong)
