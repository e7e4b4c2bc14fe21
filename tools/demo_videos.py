"""Small generated videos whose classes differ only in the order of events.

Every video shows the same four events, one in the middle of each quarter, over its own background;
a class is one order of the four. The pause between two events is longer than a snippet, so no
snippet shows two events. A network that scores each snippet alone and averages the scores therefore
gets the same evidence for every class.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

EVENTS = ("disc", "square", "bar", "ring")
ORDERS = ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1), (0, 2, 1, 3), (3, 1, 2, 0))
HUES = (0.0, 0.33, 0.6, 0.14)
H264 = {"crf": "20", "preset": "veryfast", "threads": "1"}


@dataclass(frozen=True)
class VideoSettings:
    """Size and timing of the generated videos, in pixels and frames."""

    width: int = 128
    height: int = 96
    fps: int = 24
    quarter: int = 32  # frames from the start of one event's quarter to the next
    event: int = 18  # frames an event lasts
    jitter: int = 1  # an event starts up to this many frames early or late

    @property
    def num_frames(self) -> int:
        return len(EVENTS) * self.quarter

    @property
    def shortest_pause(self) -> int:
        """The smallest possible number of frames between two events."""
        return self.quarter - self.event - 2 * self.jitter


@dataclass(frozen=True)
class Video:
    """The plan of one video: its class, and the frames (stop exclusive) that show each event."""

    label: int
    seed: tuple[int, ...]
    intervals: tuple[tuple[int, int, int], ...]  # (event, start, stop)


def class_names() -> list[str]:
    """Names of the classes: their four events in order."""
    return ["-".join(EVENTS[event] for event in order) for order in ORDERS]


def plan_video(label: int, seed: tuple[int, ...], settings: VideoSettings) -> Video:
    """Plan when a video of class `label` shows each event; random draws depend on `seed` alone."""
    draws = np.random.default_rng((*seed, 0)).integers(
        -settings.jitter, settings.jitter + 1, size=len(EVENTS)
    )
    lead = (settings.quarter - settings.event) // 2
    starts = [quarter * settings.quarter + lead + int(draw) for quarter, draw in enumerate(draws)]
    intervals = tuple(
        (event, start, start + settings.event)
        for event, start in zip(ORDERS[label], starts, strict=True)
    )
    return Video(label, seed, intervals)


def _background(rng: np.random.Generator, settings: VideoSettings) -> np.ndarray:
    """A smooth random texture, (H, 2W, 3): wide enough to move behind the events."""
    height, width = settings.height, 2 * settings.width
    coarse = rng.uniform(40, 190, size=(6, 12, 3))
    rows = np.linspace(0, coarse.shape[0] - 1.001, height)
    cols = np.linspace(0, coarse.shape[1] - 1.001, width)
    y, x = rows.astype(int), cols.astype(int)
    fy, fx = (rows - y)[:, None, None], (cols - x)[None, :, None]
    top = coarse[y][:, x] * (1 - fx) + coarse[y][:, x + 1] * fx
    low = coarse[y + 1][:, x] * (1 - fx) + coarse[y + 1][:, x + 1] * fx
    return (top * (1 - fy) + low * fy) * 0.7 + 30


def _mask(event: int, dy: np.ndarray, dx: np.ndarray, radius: float) -> np.ndarray:
    """The pixels that an event covers, from their distances to its centre: bool (H, W)."""
    distance = np.hypot(dy, dx)
    if EVENTS[event] == "disc":
        return distance < radius
    if EVENTS[event] == "square":
        return np.maximum(abs(dy), abs(dx)) < radius * 0.9
    if EVENTS[event] == "bar":
        return (abs(dx) < radius * 0.4) & (abs(dy) < radius * 1.6)
    return (distance < radius * 1.2) & (distance > radius * 0.65)


def draw(video: Video, settings: VideoSettings) -> np.ndarray:
    """Draw the frames of a video: uint8 (N, H, W, 3)."""
    rng = np.random.default_rng((*video.seed, 1))
    background = _background(rng, settings)
    drift = rng.uniform(0.1, 0.9) * settings.width / settings.num_frames
    grid_y, grid_x = np.mgrid[: settings.height, : settings.width]
    frames = np.empty((settings.num_frames, settings.height, settings.width, 3), np.uint8)
    for index in range(settings.num_frames):
        left = int(index * drift)
        canvas = background[:, left : left + settings.width]
        canvas = canvas + rng.normal(0, 4, size=(settings.height, settings.width, 1))
        frames[index] = canvas.clip(0, 255)
    for event, start, stop in video.intervals:
        centre = rng.uniform(0.3, 0.7, size=2) * (settings.height, settings.width)
        speed = rng.uniform(-1.2, 1.2, size=2)
        radius = rng.uniform(0.2, 0.28) * settings.height
        hue = (HUES[event] + rng.uniform(-0.04, 0.04)) % 1
        colour = np.array(colorsys.hsv_to_rgb(hue, 0.9, rng.uniform(0.8, 1.0))) * 255
        for index in range(start, stop):
            cy, cx = centre + speed * (index - (start + stop) / 2)
            frames[index][_mask(event, grid_y - cy, grid_x - cx, radius)] = colour
    return frames


def encode(frames: np.ndarray, path: Path, fps: int) -> None:
    """Write frames, uint8 (N, H, W, 3), as an H.264 mp4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=H264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def plan_split(split: int, count: int, seed: int, settings: VideoSettings) -> list[Video]:
    """Plan `count` videos of split number `split`, with the classes in turn."""
    return [
        plan_video(index % len(ORDERS), (seed, split, index), settings) for index in range(count)
    ]


def _write_video(video: Video, path: Path, settings: VideoSettings) -> None:
    encode(draw(video, settings), path, settings.fps)


def write_split(
    folder: Path, name: str, videos: list[Video], settings: VideoSettings
) -> Iterator[Path]:
    """Draw and encode the videos of one split on all cores, and write its list and classes.

    Yields each file when it is written.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(class_names()) + "\n", encoding="utf-8")
    paths = [Path(name) / f"{index:04d}.mp4" for index in range(len(videos))]
    lines = [f"{path} {video.label}\n" for path, video in zip(paths, videos, strict=True)]
    (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        done = {
            pool.submit(_write_video, video, folder / path, settings): folder / path
            for path, video in zip(paths, videos, strict=True)
        }
        for future in as_completed(done):
            future.result()
            yield done[future]
