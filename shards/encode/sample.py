"""One source into one sample of a tar: `key.mp4`, `key.json`, `key.frames.npy`, `key.cls`."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from typing import Any

import numpy as np

from shards.encode import mp4
from shards.encode.frame_rate import FALLBACK
from shards.encode.jpeg_folder import JpegFolder
from shards.encode.probe import Probe, probe
from shards.encode.remux import copy_packets, remux_jpegs, why_not_copy
from shards.encode.strict_decoder import Decoder
from shards.encode.transcode import Made, Origin, Transcoder
from shards.format.settings import GOP_CODECS, ShardSettings, Source
from shards.format.tars import TarWriter, Window

SAMPLE_VERSION = 1


def open_origin(source: Source) -> Origin:
    """The frames of a source, a file or a folder of JPEGs. Raises BadVideo."""
    if source.path.is_dir():
        return JpegFolder(source.path, Fraction(source.fps or FALLBACK))
    return Decoder(source.path, probe(source.path))


def make(source: Source, origin: Origin, settings: ShardSettings, window: Window) -> Made:
    """Write the mp4 of a source: as it is where that is wanted and possible, else transcoded.

    Raises BadVideo.
    """
    if isinstance(origin, JpegFolder):
        wanted = settings.codec == "mjpeg" and settings.rate in (None, origin.rate)
        wanted = wanted and bool(origin.headers)
        reason = origin.why_not_remux() if wanted else ""
        if wanted and not reason:
            return remux_jpegs(origin, settings, window)
    else:
        reason = why_not_copy(origin, source, settings) if settings.copy else ""
        if settings.copy and not reason:
            return copy_packets(origin, settings, window)
    made = Transcoder(source, origin, settings).run(window)
    if reason:
        made.notes.append(f"encoded again: {reason}")
    return made


def _describe(source: Source, found: Probe, made: Made, settings: ShardSettings) -> dict[str, Any]:
    return {
        "version": SAMPLE_VERSION,
        "key": source.key,
        "source": source.name,
        "labels": list(source.all_labels),
        "segment": None if source.start is None else [source.start, source.end],
        "segments": [list(segment) for segment in source.segments],
        "codec": settings.codec,
        "frames": made.frames,
        "fps": str(made.rate),
        "width": made.size[0],
        "height": made.size[1],
        "remuxed": made.remuxed,
        "original": {
            "container": found.container,
            "codec": found.codec,
            "width": made.original_size[0],
            "height": made.original_size[1],
            "fps": str(found.rate),
            "constant_rate": found.constant,
            "frames": len(found.times),
        },
        "notes": made.notes,
    }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _add_tables(tar: TarWriter, key: str, window: Window, about: dict[str, Any]) -> None:
    table = mp4.frame_table(window)
    if len(table) != about["frames"]:
        raise AssertionError(f"{key}: the mp4 holds {len(table)} of {about['frames']} frames")
    label = (about["labels"] or [-1])[0]
    tar.add(f"{key}.json", json.dumps(about, sort_keys=True).encode())
    tar.add(f"{key}.frames.npy", _npy(table))
    tar.add(f"{key}.cls", str(label).encode())
    if about["codec"] in GOP_CODECS:
        init, ends = mp4.fragment_ends(window)
        tar.add(f"{key}.idx.npy", _npy(np.array([len(table), init, *ends], np.int32)))


def pack(source: Source, settings: ShardSettings, tar: TarWriter) -> dict[str, Any]:
    """Append `source` to `tar`; returns its description. Raises BadVideo, the tar unchanged."""
    before = tar.offset
    try:
        origin = open_origin(source)
        with tar.streamed(f"{source.key}.mp4") as window:
            made = make(source, origin, settings, window)
        about = _describe(source, origin.found, made, settings)
        _add_tables(tar, source.key, window, about)
    except BaseException:
        tar.rewind(before)
        raise
    return about
