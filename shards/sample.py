"""One source into one sample of a tar: `key.mp4`, `key.json`, `key.frames.npy`, `key.cls`."""

from __future__ import annotations

import io
import json
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from shards import mp4
from shards.decode import Decoder
from shards.errors import BadVideo
from shards.pixels import Normaliser
from shards.probe import Probe, probe
from shards.settings import GOP_CODECS, ShardSettings, Source
from shards.tars import TarWriter, Window
from shards.timing import Cadence

SAMPLE_VERSION = 1
BLACK_LUMA = 40  # full-range luma under which a pixel counts as black
BLACK_SECONDS = 0.5


@dataclass
class BlackRuns:
    """Finds runs of black frames: flagged in the sample's notes, never refused."""

    rate: Fraction
    runs: list[tuple[int, int]] = field(default_factory=list)
    _since: int | None = None

    def see(self, frame: Any, slot: int) -> None:
        """Look at the luma of the frame that begins at output slot `slot`."""
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
        black = bool(luma[::8, : frame.width : 8].max() < BLACK_LUMA)
        if black and self._since is None:
            self._since = slot
        if not black:
            self.end(slot)

    def end(self, slot: int) -> None:
        """Close the run in hand, if any, at output slot `slot`."""
        if self._since is not None and slot - self._since >= BLACK_SECONDS * self.rate:
            self.runs.append((self._since, slot))
        self._since = None


class Transcoder:
    """Decodes, normalises and encodes one source into an mp4 window."""

    def __init__(self, source: Source, found: Probe, settings: ShardSettings) -> None:
        self.source, self.found, self.settings = source, found, settings
        self.rate = settings.rate or found.rate
        exact = settings.rate in (None, found.rate) and found.constant
        self.cadence = Cadence(self.rate, exact=exact)
        self.decoder = Decoder(source.path, found)
        self.normaliser: Normaliser | None = None
        self.writer: mp4.Mp4Writer | None = None
        self.black = BlackRuns(self.rate)
        self._repeats: deque[int] = deque()

    def run(self, window: Window) -> None:
        """Write the mp4. Raises BadVideo unless every frame is good (or enough are, if asked)."""
        held: Any = None
        for time, frame in self.decoder.frames(self.source.start, self.source.end):
            if held is None:
                self.cadence.start(time)
            else:
                self._take(held, self.cadence.fill(time), window)
            held = frame
        if held is not None:
            self._take(held, 1, window)
            assert self.normaliser is not None
            for stored in self.normaliser.flush():
                self._store(stored, window)
        self._judge()
        if self.writer is not None:
            self.black.end(self.writer.count)
            self.writer.close()

    def _take(self, frame: Any, repeats: int, window: Window) -> None:
        if self.normaliser is None:
            short, codec = self.settings.short_side, self.settings.codec
            self.normaliser = Normaliser(short, codec, self.decoder.aspect)
        if repeats == 0 and not frame.interlaced_frame:
            return
        self._repeats.append(repeats)
        for stored in self.normaliser.push(frame):
            self._store(stored, window)

    def _store(self, frame: Any, window: Window) -> None:
        repeats = self._repeats.popleft()
        if repeats == 0:
            return
        if self.writer is None:
            stream = mp4.Stream(self.settings.codec, frame.width, frame.height, self.rate)
            self.writer = mp4.Mp4Writer(window, stream, self.settings)
        if self.writer.count > self.settings.max_seconds * self.rate:
            raise BadVideo(
                "too_long", f"more than {self.settings.max_seconds:g} s: cut it with --segments"
            )
        self.black.see(frame, self.writer.count)
        self.writer.write(frame, repeats)

    def _judge(self) -> None:
        count = self.writer.count if self.writer else 0
        fault, keep = self.decoder.fault, self.settings.keep_partial
        if fault and not (keep and count >= keep):
            kind = "truncated" if self.found.damaged else "corrupt"
            raise BadVideo(kind, f"{fault} ({count} good frames before)")
        if count == 0:
            raise BadVideo("no_frames", "no frame could be decoded")

    def notes(self) -> list[str]:
        """What is odd about the sample, though it is good."""
        assert self.normaliser is not None
        notes = [f"black from frame {a} to {b}" for a, b in self.black.runs]
        if self.decoder.fault:
            notes.append(f"partial: {self.decoder.fault}")
        if len({(s.width, s.height) for s in self.normaliser.looks}) > 1:
            notes.append("the size changes in the stream")
        return notes


def _describe(transcoder: Transcoder, source: Source, classes: list[str]) -> dict[str, Any]:
    assert transcoder.writer is not None
    assert transcoder.normaliser is not None
    assert transcoder.normaliser.geometry is not None
    width, height = transcoder.normaliser.geometry.stored
    first = transcoder.normaliser.looks[0]
    labels = source.all_labels
    return {
        "version": SAMPLE_VERSION,
        "key": source.key,
        "source": source.name,
        "labels": list(labels),
        "classes": [classes[label] for label in labels],
        "segment": None if source.start is None else [source.start, source.end],
        "segments": [list(segment) for segment in source.segments],
        "codec": transcoder.settings.codec,
        "frames": transcoder.writer.count,
        "fps": str(transcoder.rate),
        "width": width,
        "height": height,
        "remuxed": False,
        "original": {
            "container": transcoder.found.container,
            "codec": transcoder.found.codec,
            "width": first.width,
            "height": first.height,
            "fps": str(transcoder.found.rate),
            "constant": transcoder.found.constant,
            "frames": len(transcoder.found.times),
        },
        "notes": transcoder.notes(),
    }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _add_tables(tar: TarWriter, source: Source, window: Window, about: dict[str, Any]) -> None:
    window.seek(0)
    table = mp4.frame_table(window)
    if len(table) != about["frames"]:
        raise AssertionError(f"{source.key}: {len(table)} of {about['frames']} frames in the mp4")
    tar.add(f"{source.key}.json", json.dumps(about, sort_keys=True).encode())
    tar.add(f"{source.key}.frames.npy", _npy(table))
    tar.add(f"{source.key}.cls", str((about["labels"] or [-1])[0]).encode())
    if about["codec"] in GOP_CODECS:
        init, ends = mp4.fragment_ends(window)
        fragments = np.array([len(table), init, *ends], np.int32)
        tar.add(f"{source.key}.idx.npy", _npy(fragments))


def pack(
    source: Source, settings: ShardSettings, classes: list[str], tar: TarWriter
) -> dict[str, Any]:
    """Append `source` to `tar`; returns its description. Raises BadVideo, the tar unchanged."""
    before = tar.offset
    try:
        with tar.streamed(f"{source.key}.mp4") as window:
            transcoder = Transcoder(source, probe(source.path), settings)
            transcoder.run(window)
        about = _describe(transcoder, source, classes)
        _add_tables(tar, source, window, about)
    except BaseException:
        tar.rewind(before)
        raise
    return about
