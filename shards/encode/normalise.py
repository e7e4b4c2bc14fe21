"""Frames as a shard stores them: upright, square pixels, BT.601, 4:2:0, progressive, even sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph

from shards.errors import BadVideo
from shards.format.settings import GOP_CODECS

MAX_PIXELS = 64_000_000
MIN_SIDE = 16
NVDEC_MIN = 144  # the least side all hardware decoders of h264, hevc and vp9 take
# Signs of the display matrix (a, b, c, d), which maps (x, y) to (a x + c y, b x + d y).
ORIENTATIONS: dict[tuple[int, int, int, int], tuple[str, ...]] = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): ("transpose=clock",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, -1, 1, 0): ("transpose=cclock",),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}
# Degrees against the clock by which a picture is to be turned, as PyAV tells them.
ROTATIONS = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}


@dataclass(frozen=True)
class Look:
    """What of a decoded frame decides how it must be changed; a change of it in mid-stream
    means a new filter graph."""

    width: int
    height: int
    format: str
    aspect: Fraction
    colorspace: int
    color_range: int
    orientation: tuple[int, int, int, int]
    interlaced: bool

    @property
    def turned(self) -> bool:
        """Whether width and height change places."""
        return self.orientation[0] == 0


def orientation(frame: Any) -> tuple[int, int, int, int]:
    """Signs of the frame's display matrix; the identity if it has none."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV stops at kinds of side data that it does not know, such as EXIF
        return ROTATIONS.get(frame.rotation % 360, (1, 0, 0, 1))
    if data is None:
        return (1, 0, 0, 1)
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
    scale = np.abs(matrix).max()
    if scale == 0:
        return (1, 0, 0, 1)
    signs = np.rint(matrix / scale).astype(int)
    found = (int(signs[0, 0]), int(signs[0, 1]), int(signs[1, 0]), int(signs[1, 1]))
    return found if found in ORIENTATIONS else (1, 0, 0, 1)


def look(frame: Any, aspect: Fraction | None) -> Look:
    """The look of a decoded frame; `aspect` is the pixels' width over height, as the file says."""
    if frame.width * frame.height > MAX_PIXELS:
        raise BadVideo("too_large", f"{frame.width}x{frame.height} pixels")
    good = aspect is not None and Fraction(1, 8) <= aspect <= 8
    return Look(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        aspect=aspect if good and aspect is not None else Fraction(1),
        colorspace=int(frame.colorspace),
        color_range=int(frame.color_range),
        orientation=orientation(frame),
        interlaced=bool(frame.interlaced_frame),
    )


@dataclass(frozen=True)
class Geometry:
    """Size after scaling and after cropping to what the codec needs, in pixels."""

    scaled: tuple[int, int]
    stored: tuple[int, int]


def geometry(seen: Look, short_side: int, codec: str) -> Geometry:
    """The stored size (width, height): aspect ratio kept, short side at most `short_side`.

    Sides are even; for the codecs of hardware video decoders they are multiples of 16, cropped
    from the scaled frame rather than squashed, and at least 144.
    """
    shown = (seen.width * seen.aspect, Fraction(seen.height))
    if seen.turned:
        shown = (shown[1], shown[0])
    if min(shown) < MIN_SIDE:
        raise BadVideo("too_small", f"{seen.width}x{seen.height}: a side under {MIN_SIDE} pixels")
    short = min(Fraction(short_side), min(shown))
    if codec in GOP_CODECS:
        short = max(short, Fraction(min(NVDEC_MIN, short_side)))
    factor = short / min(shown)
    width, height = (max(2 * round(side * factor / 2), 2) for side in shown)
    if codec not in GOP_CODECS:
        return Geometry((width, height), (width, height))
    return Geometry((width, height), (width // 16 * 16, height // 16 * 16))


class Normaliser:
    """Turns decoded frames into stored ones, in order, one for one.

    The first frame fixes the stored size; later changes of size, colour or format are scaled to
    it, as the graph is rebuilt for each new look.
    """

    def __init__(self, short_side: int, codec: str, aspect: Fraction | None) -> None:
        self.short_side = short_side
        self.codec = codec
        self.aspect = aspect
        self.geometry: Geometry | None = None
        self.looks: list[Look] = []
        self._graph: Graph | None = None

    def push(self, frame: Any) -> Iterator[Any]:
        """The stored frames that `frame` completes (deinterlacing runs one frame behind)."""
        seen = look(frame, self.aspect)
        if not self.looks or seen != self.looks[-1]:
            if self.looks and self._only_interlacing_changed(seen):
                seen = self.looks[-1]
            else:
                yield from self.flush()
                self._build(seen)
        assert self._graph is not None
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[Any]:
        """The frames still inside the graph."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
            self._graph = None

    def _only_interlacing_changed(self, seen: Look) -> bool:
        last = self.looks[-1]
        # Once deinterlacing is in the graph it leaves progressive frames alone.
        return last.interlaced and seen == Look(**{**vars(last), "interlaced": False})

    def _build(self, seen: Look) -> None:
        if self.geometry is None:
            self.geometry = geometry(seen, self.short_side, self.codec)
        self.looks.append(seen)
        graph = Graph()
        graph.threads = 1  # a worker is one core's work
        nodes = [graph.add("buffer", _buffer_arguments(seen))]
        for step in _steps(seen, self.geometry, self.codec):
            name, _, arguments = step.partition("=")
            nodes.append(graph.add(name, arguments))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        self._graph = graph

    def _pull(self) -> Iterator[Any]:
        assert self._graph is not None
        while True:
            try:
                yield self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return


def _buffer_arguments(seen: Look) -> str:
    return (
        f"video_size={seen.width}x{seen.height}:pix_fmt={seen.format}:time_base=1/1000:"
        f"pixel_aspect=1/1:colorspace={seen.colorspace}:range={seen.color_range}"
    )


def _steps(seen: Look, size: Geometry, codec: str) -> Iterator[str]:
    full = codec == "mjpeg"
    if seen.interlaced:
        yield "bwdif=mode=send_frame:deint=interlaced"
    yield from ORIENTATIONS[seen.orientation]
    (width, height), stored = size.scaled, size.stored
    yield (
        f"scale=w={width}:h={height}:flags=bicubic+accurate_rnd+bitexact:out_color_matrix=bt601:"
        f"out_range={'full' if full else 'limited'}"
    )
    yield f"format={'yuvj420p' if full else 'yuv420p'}"
    if stored != (width, height):
        yield f"crop={stored[0]}:{stored[1]}"
