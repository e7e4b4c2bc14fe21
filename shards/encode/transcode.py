"""One source, decoded strictly, normalised and encoded: frames in, an mp4 out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from shards.encode import mp4
from shards.encode.frame_rate import Cadence
from shards.encode.jpeg_folder import JpegFolder
from shards.encode.normalise import Normaliser
from shards.encode.strict_decoder import Decoder
from shards.errors import BadVideo
from shards.format.settings import ShardSettings, Source
from shards.format.tars import Window

BLACK_LUMA = 40  # full-range luma under which a pixel counts as black
BLACK_SECONDS = 0.5

Origin = Decoder | JpegFolder


@dataclass
class BlackRuns:
    """Finds runs of black frames: flagged in the sample's notes, never refused."""

    rate: Fraction
    runs: list[tuple[int, int]] = field(default_factory=list)
    _since: int | None = None

    def see(self, frame: Any, slot: int) -> None:
        """Look at the luma of the frame that begins at output slot `slot`."""
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        black = bool(luma[: frame.height : 8, : frame.width : 8].max() < BLACK_LUMA)
        if black and self._since is None:
            self._since = slot
        if not black:
            self.end(slot)

    def end(self, slot: int) -> None:
        """Close the run in hand, if any, at output slot `slot`."""
        if self._since is not None and slot - self._since >= BLACK_SECONDS * self.rate:
            self.runs.append((self._since, slot))
        self._since = None

    def notes(self) -> list[str]:
        """The runs in words."""
        return [f"black from frame {a} to {b}" for a, b in self.runs]


@dataclass
class Made:
    """An mp4 as written: frames, rate (1/s), size in pixels, and what is odd about it."""

    frames: int
    rate: Fraction
    size: tuple[int, int]
    original_size: tuple[int, int]
    remuxed: bool
    notes: list[str]


def judge(fault: str, damaged: str, count: int, settings: ShardSettings) -> list[str]:
    """Raises BadVideo unless every frame was good, or enough of them where that is asked for;
    else returns the notes to make."""
    if fault and not (settings.keep_partial and count >= settings.keep_partial):
        raise BadVideo(
            "truncated" if damaged else "corrupt", f"{fault} ({count} good frames before)"
        )
    if count == 0:
        raise BadVideo("no_frames", "no frame could be decoded")
    return [f"partial: {fault}"] if fault else []


def check_length(count: int, rate: Fraction, settings: ShardSettings) -> None:
    """Raises BadVideo for a sample longer than a sample may be."""
    if count > settings.max_seconds * rate:
        raise BadVideo(
            "too_long",
            f"more than {settings.max_seconds:g} s: cut it into segments, or raise --max-seconds",
        )


class Transcoder:
    """Decodes, normalises and encodes one source into an mp4."""

    def __init__(self, source: Source, origin: Origin, settings: ShardSettings) -> None:
        found = origin.found
        self.source, self.origin, self.settings = source, origin, settings
        self.rate = settings.rate or found.rate
        self.cut = source.start, source.end
        if source.if_longer and source.end is not None and source.start is not None:
            trimmed = found.duration < source.end - source.start + 1.0
            self.cut = (None, None) if trimmed else self.cut
        exact = found.constant and self.rate == found.rate
        self.cadence = Cadence(self.rate, exact=exact)
        self.writer: mp4.Mp4Writer | None = None
        self.normaliser: Normaliser | None = None
        self.black = BlackRuns(self.rate)
        self._repeats: deque[int] = deque()

    def run(self, window: Window) -> Made:
        """Write the mp4. Raises BadVideo unless every frame is good (or enough are, if asked)."""
        for frame, repeats in self.encoder_input():
            if self.writer is None:
                stream = mp4.Stream(self.settings.codec, frame.width, frame.height, self.rate)
                self.writer = mp4.Mp4Writer(window, stream, self.settings)
            self.black.see(frame, self.writer.count)
            self.writer.write(frame, repeats)
            check_length(self.writer.count, self.rate, self.settings)
        count = self.writer.count if self.writer else 0
        notes = judge(self.origin.fault, self.origin.found.damaged, count, self.settings)
        assert self.writer is not None
        self.black.end(count)
        self.writer.close()
        leading = self.origin.found.leading if self.cut[0] is None else 0
        if leading:
            notes.append(f"{leading} packets before the first keyframe left out")
        return self._made(notes + self.black.notes())

    def encoder_input(self) -> Iterator[tuple[Any, int]]:
        """Yield the normalised frames in order, each with the number of times it is stored."""
        held: Any = None
        for time, frame in self.origin.frames(*self.cut):
            if held is None:
                self.cadence.start(time)
            else:
                yield from self._normalise(held, self.cadence.fill(time))
            held = frame
        if held is not None:
            yield from self._normalise(held, 1)
            assert self.normaliser is not None
            yield from self._with_repeats(self.normaliser.flush())

    def _normalise(self, frame: Any, repeats: int) -> Iterator[tuple[Any, int]]:
        if self.normaliser is None:
            short, codec = self.settings.short_side, self.settings.codec
            self.normaliser = Normaliser(short, codec, self.origin.aspect)
        # A dropped frame still matters to its neighbours where fields are interpolated.
        if repeats == 0 and not frame.interlaced_frame:
            return
        self._repeats.append(repeats)
        yield from self._with_repeats(self.normaliser.push(frame))

    def _with_repeats(self, frames: Iterable[Any]) -> Iterator[tuple[Any, int]]:
        for frame in frames:
            if repeats := self._repeats.popleft():
                yield frame, repeats

    def _made(self, notes: list[str]) -> Made:
        assert self.writer is not None
        assert self.normaliser is not None
        assert self.normaliser.geometry is not None
        looks = self.normaliser.looks
        if len({(seen.width, seen.height) for seen in looks}) > 1:
            notes = [*notes, "the size changes in the stream"]
        return Made(
            frames=self.writer.count,
            rate=self.rate,
            size=self.normaliser.geometry.stored,
            original_size=(looks[0].width, looks[0].height),
            remuxed=False,
            notes=notes,
        )
