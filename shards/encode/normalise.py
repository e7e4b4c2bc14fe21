"""Converts frames to the format of shards: upright, square pixels, BT.601 4:2:0, progressive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph

from shards.errors import BadVideo
from shards.format.settings import GOP_CODECS, MAX_PIXELS

MIN_SIDE = 16
MIN_ASPECT = Fraction(1, 8)  # of a pixel; its inverse is the largest
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # by AVColorTransferCharacteristic
MATRIX_TOLERANCE = 0.02  # of an entry of the display matrix: about one degree
MIN_HARDWARE_SIDE = 144  # all hardware decoders of h264, hevc and vp9 can decode this side
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
# Display matrices by PyAV's rotation: degrees counterclockwise to turn the frame by.
ROTATIONS = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}


@dataclass(frozen=True)
class FrameProperties:
    """The properties of a decoded frame that the filter graph depends on.

    Attributes:
        width, height: in pixels.
        format: FFmpeg's name of the pixel format.
        aspect: width of a pixel over its height.
        colorspace, color_range: FFmpeg's AVColorSpace and AVColorRange.
        orientation: signs of the display matrix, a key of ORIENTATIONS.
        interlaced: whether the frame consists of two fields.
    """

    width: int
    height: int
    format: str
    aspect: Fraction
    colorspace: int
    color_range: int
    orientation: tuple[int, int, int, int]
    interlaced: bool

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places when the frame is turned upright."""
        return self.orientation[0] == 0


def _display_matrix(frame: Any) -> np.ndarray | None:
    """Return the frame's display matrix (2, 2) as rows (a, b), (c, d), None if it has none.

    Its largest absolute value is 1.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data, EXIF for one
        signs = ROTATIONS.get(frame.rotation % 360)
        return None if signs is None else np.array(signs, np.float64).reshape(2, 2)
    if data is None:
        return None
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
    scale = np.abs(matrix).max()
    return matrix / scale if scale else None


def read_orientation(frame: Any) -> tuple[int, int, int, int]:
    """Return the signs of the frame's display matrix, those of the identity if it has none."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return (1, 0, 0, 1)
    a, b, c, d = (int(sign) for sign in np.rint(matrix).ravel())
    return (a, b, c, d) if (a, b, c, d) in ORIENTATIONS else (1, 0, 0, 1)


def describe_losses(frame: Any, aspect: Fraction | None) -> list[str]:
    """Return a note for each property of a decoded frame that its stored form does not keep.

    aspect: width of a pixel over its height by the file, None if it does not say.
    """
    notes = []
    if transfer := HDR_TRANSFERS.get(int(frame.color_trc)):
        notes.append(f"HDR ({transfer}) is stored without tone mapping")
    matrix = _display_matrix(frame)
    if matrix is not None:
        stored = np.reshape(read_orientation(frame), (2, 2))
        if np.abs(matrix - stored).max() > MATRIX_TOLERANCE:
            asked, done = (_degrees(m) for m in (matrix, stored))
            notes.append(f"rotation by {asked} degrees is rounded to {done}")
    if aspect and not MIN_ASPECT <= aspect <= 1 / MIN_ASPECT:
        notes.append(f"pixel aspect ratio {aspect} is ignored")
    return notes


def _degrees(matrix: np.ndarray) -> int:
    """Return the counterclockwise angle of a display matrix, as FFmpeg prints it."""
    return -round(math.degrees(math.atan2(matrix[0, 1], matrix[0, 0])))


def frame_properties(frame: Any, aspect: Fraction | None) -> FrameProperties:
    """Return the properties of a decoded frame. Raises BadVideo for one that is too large.

    aspect: width of a pixel over its height by the file, None if it does not say.
    """
    if frame.width * frame.height > MAX_PIXELS:
        raise BadVideo("too_large", f"{frame.width}x{frame.height} pixels")
    if aspect is None or not MIN_ASPECT <= aspect <= 1 / MIN_ASPECT:
        aspect = Fraction(1)
    return FrameProperties(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        aspect=aspect,
        colorspace=int(frame.colorspace),
        color_range=int(frame.color_range),
        orientation=read_orientation(frame),
        interlaced=bool(frame.interlaced_frame),
    )


@dataclass(frozen=True)
class Geometry:
    """Size (width, height) in pixels after scaling, and as stored: cropped for the codec."""

    scaled: tuple[int, int]
    stored: tuple[int, int]


def compute_geometry(properties: FrameProperties, short_side: int, codec: str) -> Geometry:
    """Return the size of the stored frames: aspect ratio kept, short side at most `short_side`.

    Sides are even. For h264, hevc and vp9 they are multiples of 16, cropped from the scaled
    frame, and at least 144. Raises BadVideo for a frame that is too small.
    """
    shown = (properties.width * properties.aspect, Fraction(properties.height))
    if properties.swaps_sides:
        shown = (shown[1], shown[0])
    if min(shown) < MIN_SIDE:
        size = f"{properties.width}x{properties.height}"
        raise BadVideo("too_small", f"{size}: a side under {MIN_SIDE} pixels")
    short = min(Fraction(short_side), min(shown))
    if codec in GOP_CODECS:
        short = max(short, Fraction(min(MIN_HARDWARE_SIDE, short_side)))
    factor = short / min(shown)
    width, height = (max(2 * round(side * factor / 2), 2) for side in shown)
    if codec not in GOP_CODECS:
        return Geometry((width, height), (width, height))
    return Geometry((width, height), (width // 16 * 16, height // 16 * 16))


class Normaliser:
    """Converts decoded frames to stored frames, in order, one for one.

    The first frame determines the stored size. When the properties of the frames change, the
    filter graph is built anew and scales to the same size.

    history: the properties of the frames, one entry for each graph.
    losses: notes on what the stored frames do not keep.
    """

    def __init__(self, short_side: int, codec: str, aspect: Fraction | None) -> None:
        self.short_side = short_side
        self.codec = codec
        self.aspect = aspect
        self.geometry: Geometry | None = None
        self.history: list[FrameProperties] = []
        self.losses: list[str] = []
        self._graph: Graph | None = None

    def push(self, frame: Any) -> Iterator[Any]:
        """Yield the stored frames that are ready; deinterlacing runs one frame behind."""
        properties = frame_properties(frame, self.aspect)
        if not self.history or properties != self.history[-1]:
            if self.history and self._only_interlacing_changed(properties):
                properties = self.history[-1]
            else:
                yield from self.flush()
                self._build_graph(properties)
                new = describe_losses(frame, self.aspect)
                self.losses += [note for note in new if note not in self.losses]
        assert self._graph is not None
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[Any]:
        """Yield the frames that are still in the graph."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
            self._graph = None

    def _only_interlacing_changed(self, properties: FrameProperties) -> bool:
        last = self.history[-1]
        # A graph that deinterlaces leaves progressive frames as they are.
        return last.interlaced and properties == replace(last, interlaced=False)

    def _build_graph(self, properties: FrameProperties) -> None:
        if self.geometry is None:
            self.geometry = compute_geometry(properties, self.short_side, self.codec)
        self.history.append(properties)
        graph = Graph()
        graph.threads = 1  # a worker process uses one core
        nodes = [graph.add("buffer", _buffer_arguments(properties))]
        for filter_text in _filters(properties, self.geometry, self.codec):
            name, _, arguments = filter_text.partition("=")
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


def _buffer_arguments(properties: FrameProperties) -> str:
    return (
        f"video_size={properties.width}x{properties.height}:pix_fmt={properties.format}:time_base=1/1000:"
        f"pixel_aspect=1/1:colorspace={properties.colorspace}:range={properties.color_range}"
    )


def _filters(properties: FrameProperties, size: Geometry, codec: str) -> Iterator[str]:
    full = codec == "mjpeg"
    if properties.interlaced:
        yield "bwdif=mode=send_frame:deint=interlaced"
    yield from ORIENTATIONS[properties.orientation]
    (width, height), stored = size.scaled, size.stored
    yield (
        f"scale=w={width}:h={height}:flags=bicubic+accurate_rnd+bitexact:out_color_matrix=bt601:"
        f"out_range={'full' if full else 'limited'}"
    )
    yield f"format={'yuvj420p' if full else 'yuv420p'}"
    if stored != (width, height):
        yield f"crop={stored[0]}:{stored[1]}"
