"""Videos made here, and single samples packed and read back."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from shards import ShardSettings, Source
from shards.encode.sample import pack
from shards.format.tars import TarWriter


def moving_squares(count: int, size: tuple[int, int] = (96, 64), seed: int = 0) -> list[np.ndarray]:
    """RGB frames (H, W, 3) of a bright square moving over a smooth background."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    corners = rng.uniform(60, 190, (2, 3))
    background = corners[0] + (corners[1] - corners[0]) * ((x + y) / (width + height))[..., None]
    frames = []
    for t in range(count):
        frame = background.astype(np.uint8)
        left, top = (3 * t + 5) % (width - 16), (2 * t + 3) % (height - 16)
        frame[top : top + 16, left : left + 16] = rng.integers(180, 250, 3)
        frames.append(frame)
    return frames


def write_video(path: Path, frames: list[np.ndarray], rate: int | Fraction = 25, **more) -> Path:
    """Encode RGB frames (H, W, 3); `more`: codec, format, pix_fmt, aspect, pts (ms), options."""
    codec, pts = more.get("codec", "libx264"), more.get("pts")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=more.get("format")) as container:
        stream = container.add_stream(codec, rate=rate, options=more.get("options", {"crf": "12"}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = more.get("pix_fmt", "yuv420p")
        if "aspect" in more:
            stream.codec_context.sample_aspect_ratio = more["aspect"]
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_long_video(path: Path, frames: list[np.ndarray], times: int) -> Path:
    """The frames over and over, encoded once."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "crf": "18"})
        stream.height, stream.width = frames[0].shape[:2]
        pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
        packets = [bytes(p) for f in [*pictures, None] for p in stream.encode(f)]
        for number, data in enumerate(packets * times):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = number % len(packets) == 0
            container.mux(packet)
    return path


@dataclass(frozen=True)
class Packed:
    """One packed sample: its description, its frame table and the bytes of its mp4."""

    metadata: dict
    table: np.ndarray
    mp4: bytes

    def jpeg(self, t: int) -> bytes:
        """The bytes of frame t."""
        offset, size, _ = map(int, self.table[t])
        return self.mp4[offset : offset + size]

    def rgb(self) -> list[np.ndarray]:
        """All frames, decoded by PyAV from the mp4, as RGB (H, W, 3)."""
        with av.open(io.BytesIO(self.mp4), format="mp4") as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def pack_one(tmp_path: Path, source: Source | Path, **settings) -> Packed:
    """Pack one source in this process, and read the tar with Python's tarfile."""
    if isinstance(source, Path):
        source = Source(source, 0, "k", name=source.name)
    tar = TarWriter(tmp_path / "one.tar")
    try:
        metadata = pack(source, ShardSettings(**settings), tar)
        tar.finish({"verdicts": []})
    finally:
        tar.close()
    with tarfile.open(tmp_path / "one.tar") as archive:
        names = ("mp4", "frames.npy")
        data, table = (archive.extractfile(f"{source.key}.{n}").read() for n in names)
    return Packed(metadata, np.load(io.BytesIO(table), allow_pickle=False), data)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 arrays, in dB."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def jpeg(array: np.ndarray, pix_fmt: str = "yuvj420p", quality: int = 3) -> bytes:
    """One JPEG of an RGB array (H, W, 3)."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = array.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.color_range = pix_fmt, Fraction(1, 12), 2
    encoder.options = {"qmin": str(quality), "qmax": str(quality)}
    frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pix_fmt)
    return b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])
