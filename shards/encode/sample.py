"""Writes one sample into a tar: `key.mp4`, `key.json`, `key.frames.npy` and `key.cls`."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from typing import Any

import numpy as np

from shards.encode import mp4
from shards.encode.frame_rate import FALLBACK_RATE
from shards.encode.jpeg_folder import JpegFolder
from shards.encode.probe import ProbeResult, probe
from shards.encode.remux import copy_packets, find_copy_obstacle, remux_jpegs
from shards.encode.strict_decoder import StrictDecoder
from shards.encode.transcode import FrameSource, Transcoder, WrittenVideo
from shards.errors import BadVideo
from shards.format import frame_table
from shards.format.settings import GOP_CODECS, ShardSettings, Source
from shards.format.tars import TarWriter, Window

SAMPLE_VERSION = 1


def open_source(source: Source) -> FrameSource:
    """Open a source, a file or a folder of JPEGs. Raises BadVideo if it contains no video."""
    if source.path.is_dir():
        return JpegFolder(source.path, Fraction(source.fps or FALLBACK_RATE), source.frames)
    if source.frames and source.path.exists():
        raise BadVideo("list", "the list has numbers of frames, but this is not a folder of frames")
    return StrictDecoder(source.path, probe(source.path))


def write_mp4(
    source: Source, frame_source: FrameSource, settings: ShardSettings, window: Window
) -> WrittenVideo:
    """Write the mp4 of a source, without encoding it again where that is wanted and possible.

    Raises BadVideo if the source cannot become a sample.
    """
    _check_segment(source, frame_source.probe_result)
    if isinstance(frame_source, JpegFolder):
        may_remux = settings.codec == "mjpeg" and settings.rate in (None, frame_source.rate)
        may_remux = may_remux and bool(frame_source.headers) and source.start is None
        obstacle = frame_source.find_remux_obstacle() if may_remux else ""
        if may_remux and not obstacle:
            return remux_jpegs(frame_source, settings, window)
    else:
        obstacle = find_copy_obstacle(frame_source, source, settings) if settings.copy else ""
        if settings.copy and not obstacle:
            return copy_packets(frame_source, settings, window)
    video = Transcoder(source, frame_source, settings).run(window)
    if obstacle:
        video.notes.append(f"encoded again: {obstacle}")
    return video


def _check_segment(source: Source, probed: ProbeResult) -> None:
    """Raise BadVideo if the segment of a source begins after its last frame."""
    if source.start is None or source.if_longer or not probed.times:
        return
    if source.start > probed.times[-1]:
        raise BadVideo(
            "segment",
            f"the segment begins at {source.start:g} s, the video ends at {probed.duration:g} s: "
            "correct the list",
        )


def _describe(
    source: Source, probed: ProbeResult, video: WrittenVideo, settings: ShardSettings
) -> dict[str, Any]:
    return {
        "version": SAMPLE_VERSION,
        "key": source.key,
        "source": source.name,
        "labels": list(source.all_labels),
        "segment": _segment(source, probed),
        "segments": [list(segment) for segment in source.segments],
        "codec": settings.codec,
        "frames": video.frames,
        "fps": str(video.rate),
        "width": video.size[0],
        "height": video.size[1],
        "remuxed": video.remuxed,
        "original": {
            "container": probed.container,
            "codec": probed.codec,
            "width": video.original_size[0],
            "height": video.original_size[1],
            "fps": str(probed.rate),
            "constant_rate": probed.constant,
            "frames": len(probed.times),
        },
        "notes": [*video.notes, *probed.notes],
    }


def _segment(source: Source, probed: ProbeResult) -> list[float | None] | None:
    """Return start and end in seconds of the part of the source that was used; None for all."""
    if source.frames:
        first, count = source.frames
        return [first / float(probed.rate), (first + count) / float(probed.rate)]
    return None if source.start is None else [source.start, source.end]


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _add_small_members(tar: TarWriter, key: str, window: Window, metadata: dict[str, Any]) -> None:
    table = mp4.frame_table(window)
    if len(table) != metadata["frames"]:
        raise AssertionError(f"{key}: the mp4 has {len(table)} of {metadata['frames']} frames")
    label = (metadata["labels"] or [-1])[0]
    tar.add(f"{key}.json", json.dumps(metadata, sort_keys=True).encode())
    tar.add(f"{key}.frames.npy", frame_table.to_npy(table))
    tar.add(f"{key}.cls", str(label).encode())
    if metadata["codec"] in GOP_CODECS:
        init, ends = mp4.fragment_ends(window)
        tar.add(f"{key}.idx.npy", _to_npy(np.array([len(table), init, *ends], np.int32)))


def pack(source: Source, settings: ShardSettings, tar: TarWriter) -> dict[str, Any]:
    """Append the sample of a source to `tar`, and return its metadata.

    Raises BadVideo if the source cannot become a sample; the tar is unchanged then.
    """
    before = tar.offset
    try:
        frame_source = open_source(source)
        with tar.stream_member(f"{source.key}.mp4") as window:
            video = write_mp4(source, frame_source, settings, window)
        metadata = _describe(source, frame_source.probe_result, video, settings)
        _add_small_members(tar, source.key, window, metadata)
    except BaseException:
        tar.rewind(before)
        raise
    return metadata
