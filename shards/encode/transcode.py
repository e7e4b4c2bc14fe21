"""Decodes a source strictly, normalises its frames and encodes them into an mp4."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from shards.encode import mp4
from shards.encode.frame_rate import SlotCounter, describe_reduction
from shards.encode.jpeg_folder import JpegFolder
from shards.encode.normalise import Normaliser
from shards.encode.strict_decoder import StrictDecoder
from shards.errors import BadVideo
from shards.format.settings import ShardSettings, Source
from shards.format.tars import Window

BLACK_LUMA = 40  # a pixel with a smaller full-range luma counts as black
BLACK_SECONDS = 0.5  # shortest run that is noted

FrameSource = StrictDecoder | JpegFolder


@dataclass
class BlackRuns:
    """Finds runs of black frames, which are noted in the metadata but never refused."""

    rate: Fraction
    runs: list[tuple[int, int]] = field(default_factory=list)
    _start: int | None = None

    def add_frame(self, frame: Any, slot: int) -> None:
        """Check the luma of the frame that begins at output slot `slot`."""
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        black = bool(luma[: frame.height : 8, : frame.width : 8].max() < BLACK_LUMA)
        if black and self._start is None:
            self._start = slot
        if not black:
            self.close_run(slot)

    def close_run(self, slot: int) -> None:
        """End the current run, if there is one, at output slot `slot`."""
        if self._start is not None and slot - self._start >= BLACK_SECONDS * self.rate:
            self.runs.append((self._start, slot))
        self._start = None

    def notes(self) -> list[str]:
        """Return a note for each run."""
        return [f"black from frame {start} to {end}" for start, end in self.runs]


@dataclass
class WrittenVideo:
    """What an mp4 contains.

    Attributes:
        frames: number of frames.
        rate: frames per second.
        size, original_size: (width, height) in pixels, stored and in the source.
        remuxed: whether the packets of the source were stored bit for bit.
        notes: sentences for the metadata.
    """

    frames: int
    rate: Fraction
    size: tuple[int, int]
    original_size: tuple[int, int]
    remuxed: bool
    notes: list[str]


def check_complete(
    fault: str, container_damage: str, count: int, settings: ShardSettings
) -> list[str]:
    """Return the notes on a source of which `count` frames were decoded before `fault`.

    Raises BadVideo if frames are damaged or missing and too few to keep are left.
    """
    if fault and not (settings.keep_partial and count >= settings.keep_partial):
        raise BadVideo(
            "truncated" if container_damage else "corrupt", f"{fault} ({count} good frames before)"
        )
    if count == 0:
        raise BadVideo("no_frames", "no frame could be decoded")
    return [f"partial: {fault}"] if fault else []


def check_length(count: int, rate: Fraction, settings: ShardSettings) -> None:
    """Raise BadVideo if a sample is longer than `settings.max_seconds`."""
    if count > settings.max_seconds * rate:
        raise BadVideo(
            "too_long",
            f"more than {settings.max_seconds:g} s: cut it into segments, or raise --max-seconds",
        )


class Transcoder:
    """Decodes, normalises and encodes one source into an mp4."""

    def __init__(self, source: Source, frame_source: FrameSource, settings: ShardSettings) -> None:
        probed = frame_source.probe_result
        self.frame_source, self.settings = frame_source, settings
        self.rate = settings.rate or probed.rate
        self.segment = source.start, source.end
        if source.if_longer and source.end is not None and source.start is not None:
            is_trimmed = probed.duration < source.end - source.start + 1.0
            self.segment = (None, None) if is_trimmed else self.segment
        exact = probed.constant and self.rate == probed.rate and not probed.empty_pictures
        self.slots = SlotCounter(self.rate, exact=exact)
        self.writer: mp4.Mp4Writer | None = None
        self.normaliser: Normaliser | None = None
        self.black = BlackRuns(self.rate)
        self._repeats: deque[int] = deque()

    def run(self, window: Window) -> WrittenVideo:
        """Write the mp4 into `window`. Raises BadVideo if the source cannot become a sample."""
        for frame, repeats in self.encoder_input():
            if self.writer is None:
                video = mp4.VideoFormat(self.settings.codec, frame.width, frame.height, self.rate)
                self.writer = mp4.Mp4Writer(window, video, self.settings)
            self.black.add_frame(frame, self.writer.count)
            self.writer.write(frame, repeats)
            check_length(self.writer.count, self.rate, self.settings)
        count = self.writer.count if self.writer else 0
        probed = self.frame_source.probe_result
        notes = check_complete(self.frame_source.fault, probed.damage, count, self.settings)
        assert self.writer is not None
        self.black.close_run(count)
        self.writer.close()
        leading = probed.leading if self.segment[0] is None else 0
        if leading:
            notes.append(f"{leading} packets before the first keyframe left out")
        if self.settings.rate is None:
            notes += describe_reduction(probed.times)
        return self._describe(notes + self.black.notes())

    def encoder_input(self) -> Iterator[tuple[Any, int]]:
        """Yield the normalised frames in order, each with the number of times it is stored."""
        pending: Any = None  # a frame whose slots depend on the time of the next one
        for time, frame in self.frame_source.frames(*self.segment):
            if pending is None:
                self.slots.start(time)
            else:
                yield from self._normalise(pending, self.slots.count_slots(time))
            pending = frame
        if pending is not None:
            yield from self._normalise(pending, 1)
            assert self.normaliser is not None
            yield from self._with_repeats(self.normaliser.flush())

    def _normalise(self, frame: Any, repeats: int) -> Iterator[tuple[Any, int]]:
        if self.normaliser is None:
            short_side, codec = self.settings.short_side, self.settings.codec
            self.normaliser = Normaliser(short_side, codec, self.frame_source.aspect)
        # Deinterlacing needs the neighbours of a frame, even those without a slot.
        if repeats == 0 and not frame.interlaced_frame:
            return
        self._repeats.append(repeats)
        yield from self._with_repeats(self.normaliser.push(frame))

    def _with_repeats(self, frames: Iterable[Any]) -> Iterator[tuple[Any, int]]:
        for frame in frames:
            if repeats := self._repeats.popleft():
                yield frame, repeats

    def _describe(self, notes: list[str]) -> WrittenVideo:
        assert self.writer is not None
        assert self.normaliser is not None
        assert self.normaliser.geometry is not None
        history = self.normaliser.history
        if len({(properties.width, properties.height) for properties in history}) > 1:
            notes = [*notes, "the size changes in the stream"]
        notes = [*notes, *self.normaliser.losses]
        return WrittenVideo(
            frames=self.writer.count,
            rate=self.rate,
            size=self.normaliser.geometry.stored,
            original_size=(history[0].width, history[0].height),
            remuxed=False,
            notes=notes,
        )
