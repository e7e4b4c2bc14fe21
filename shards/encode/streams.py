"""Chooses the video stream of a file: the one that a player shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from av.stream import Disposition

# Codecs of still images. A small stream of one beside a film holds thumbnails of it.
IMAGE_CODECS = {"mjpeg", "png", "bmp", "gif", "tiff", "webp", "jpeg2000", "jpegls"}
NOT_A_FILM = Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
SMALL = 4  # a thumbnail has less than 1/SMALL of the film's pixels


def codec_name(stream: Any) -> str:
    """Return the name of a stream's codec, whichever decoder FFmpeg has for it."""
    context = stream.codec_context
    return "unknown" if context is None else context.codec.canonical_name


def film_streams(container: Any) -> list[Any]:
    """Return the video streams of a container that are not cover pictures."""
    covers = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & covers]


def choose_stream(streams: Sequence[Any], packets: Mapping[int, int]) -> Any:
    """Return the stream that a player shows: not a thumbnail, then default flag, then size.

    streams: at least one.
    packets: number of packets of each stream, by index.
    """
    longest = max(packets.get(stream.index, 0) for stream in streams)
    film = max((_pixels(s) for s in streams if codec_name(s) not in IMAGE_CODECS), default=0)

    def is_thumbnail(stream: Any) -> bool:
        single = packets.get(stream.index, 0) == 1 < longest
        small = codec_name(stream) in IMAGE_CODECS and SMALL * _pixels(stream) < film
        return bool(stream.disposition & NOT_A_FILM) or single or small

    def rank(stream: Any) -> tuple[bool, bool, bool, bool, int, int]:
        return (
            stream.codec_context is not None,
            packets.get(stream.index, 0) > 0,
            not is_thumbnail(stream),
            bool(stream.disposition & Disposition.default),
            _pixels(stream),
            -stream.index,
        )

    return max(streams, key=rank)


def describe_choice(streams: Sequence[Any], chosen: Any) -> list[str]:
    """Return a note on which of several streams was chosen, [] for a single one."""
    others = [_describe(stream) for stream in streams if stream is not chosen]
    if not others:
        return []
    return [f"video stream {_describe(chosen)} is used, not {', '.join(others)}"]


def _describe(stream: Any) -> str:
    context = stream.codec_context
    size = f" {context.width}x{context.height}" if context is not None else ""
    return f"{stream.index} ({codec_name(stream)}{size})"


def _pixels(stream: Any) -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height
