"""Writes the mp4 of a sample, and finds the frames in it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from shards.errors import BadVideo
from shards.format.frame_table import MAX_MP4
from shards.format.index import FRAME_DTYPE
from shards.format.settings import ShardSettings
from shards.format.tars import Window

ENCODERS = {"mjpeg": "mjpeg", "h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9"}
FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"


def encoder_options(codec: str, quality: int, gop: int) -> dict[str, str]:
    """Return encoder options: one thread, bit-exact; closed GOPs of `gop` frames, no B-frames."""
    common = {"threads": "1", "flags": "+bitexact"}
    closed = {"g": str(gop), "keyint_min": str(gop), "bf": "0", "crf": str(quality)}
    if codec == "mjpeg":
        # 118 is FFmpeg's FF_QP2LAMBDA.
        scale = {"qmin": str(quality), "qmax": str(quality), "global_quality": str(118 * quality)}
        return common | scale | {"flags": "+bitexact+qscale"}
    if codec == "h264":
        x264 = {"preset": "veryfast", "sc_threshold": "0", "flags": "+bitexact+cgop"}
        return common | closed | x264
    if codec == "hevc":
        x265 = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:open-gop=0:info=0"
        limits = "pools=none:frame-threads=1:log-level=none"
        return common | closed | {"preset": "veryfast", "x265-params": f"{x265}:{limits}"}
    vp9 = {"b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "0", "lag-in-frames": "0"}
    return common | closed | vp9 | {"auto-alt-ref": "0"}


def open_output(window: Window, codec: str) -> Any:
    """Open an mp4 to write into `window`, the same bytes on every machine.

    Its tables come first, so that it can be read from a pipe: one for the whole file of an mjpeg,
    one for each GOP of the others.
    """
    flags = "faststart" if codec == "mjpeg" else FRAGMENTED

    def reopen(*_: Any) -> Window:  # the muxer reads the frames back to move them behind the tables
        return window.reader()

    options = {"fflags": "+bitexact", "movflags": flags}
    return av.open(window, "w", format="mp4", options=options, io_open=reopen)


def check_size(size: int) -> None:
    """Raise BadVideo if an mp4 of so many bytes has offsets that its frame table cannot hold."""
    if size >= MAX_MP4:
        raise BadVideo("too_large", "more than 4 GiB of frames: cut the video into segments")


@dataclass(frozen=True)
class VideoFormat:
    """Codec, size in pixels and constant frame rate of an mp4."""

    codec: str
    width: int
    height: int
    rate: Fraction

    @property
    def pix_fmt(self) -> str:
        """The pixel format: 4:2:0, full range for JPEG and limited range for video codecs."""
        return "yuvj420p" if self.codec == "mjpeg" else "yuv420p"


class Mp4Writer:
    """Writes an mp4 into `window` from frames to encode, or from JPEGs as they are."""

    def __init__(self, window: Window, video: VideoFormat, settings: ShardSettings) -> None:
        self.count = 0
        self._codec = video.codec
        self._tick = 1 / video.rate  # the muxer changes the time base of the stream to a finer one
        self._window = window
        self._container: Any = open_output(window, video.codec)
        encoding = encoder_options(video.codec, settings.effective_quality, settings.gop)
        if video.codec == "mjpeg":
            self._encoder = self._jpeg_encoder(video, encoding)
        else:
            self._encoder = self._video_encoder(video, encoding)

    def _jpeg_encoder(self, video: VideoFormat, options: dict[str, str]) -> Any:
        sizes = {"width": video.width, "height": video.height, "pix_fmt": video.pix_fmt}
        self._stream = self._container.add_mux_stream("mjpeg", rate=video.rate, **sizes)
        self._stream.time_base = self._tick
        encoder: Any = av.CodecContext.create("mjpeg", "w")
        for name, value in sizes.items():
            setattr(encoder, name, value)
        encoder.time_base, encoder.color_range = self._tick, 2
        encoder.options = options
        return encoder

    def _video_encoder(self, video: VideoFormat, options: dict[str, str]) -> Any:
        name = ENCODERS[video.codec]
        self._stream = self._container.add_stream(name, rate=video.rate, options=options)
        encoder = self._stream.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = video.width, video.height, "yuv420p"
        encoder.time_base, encoder.thread_count = self._tick, 1
        encoder.colorspace, encoder.color_range = 6, 1  # SMPTE 170M is BT.601; limited range
        if video.codec == "hevc":
            encoder.codec_tag = "hvc1"
        return encoder

    def write(self, frame: Any, repeats: int = 1) -> None:
        """Encode a frame for the next `repeats` slots; a repeated JPEG is encoded once."""
        check_size(self._window.end)
        frame.time_base = self._encoder.time_base
        frame.pict_type = 0
        if self._codec == "mjpeg":
            frame.pts = self.count
            for packet in self._encoder.encode(frame):
                self.write_jpeg(bytes(packet), repeats)
            return
        for _ in range(repeats):
            frame.pts = self.count
            self._container.mux(self._encoder.encode(frame))
            self.count += 1

    def write_jpeg(self, data: bytes, repeats: int = 1) -> None:
        """Store a JPEG bit for bit in the next `repeats` slots."""
        check_size(self._window.end)
        for _ in range(repeats):
            packet: Any = av.Packet(data)
            packet.stream, packet.time_base = self._stream, self._tick
            packet.pts = packet.dts = self.count
            packet.duration, packet.is_keyframe = 1, True
            self._container.mux(packet)
            self.count += 1

    def close(self) -> None:
        """Flush the encoder and write the tables of the container."""
        if self._codec != "mjpeg":
            self._container.mux(self._encoder.encode(None))
        self._container.close()


def frame_table(file: Window) -> np.ndarray:
    """Return offset, size (bytes) and CRC-32 of the N frames of an mp4, as FRAME_DTYPE (N,).

    Raises BadVideo for an mp4 that is too large for it.
    """
    rows = []
    check_size(file.seek(0, 2))
    file.seek(0)
    container: Any = av.open(file, format="mp4")
    with container:
        for packet in container.demux(video=0):
            if packet.size:
                rows.append((packet.pos, packet.size, zlib.crc32(packet)))
    return np.array(rows, FRAME_DTYPE)


def fragment_ends(file: Any) -> tuple[int, list[int]]:
    """Return (bytes before the first fragment, end of each fragment) of a fragmented mp4."""
    ends: list[int] = []
    init, position, end_of_file = 0, 0, file.seek(0, 2)
    while position + 8 <= end_of_file:
        file.seek(position)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if kind == b"moof" and not ends and not init:
            init = position
        position += size or end_of_file - position
        if kind == b"mdat" and init:
            ends.append(position)
    return init, ends
