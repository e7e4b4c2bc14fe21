"""Opens files with FFmpeg: only formats of video, for one thread, with errors as verdicts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from dsanet.limits import raise_limit
from shards.errors import BadVideo

# Containers of video files. Playlists are left out: they can name other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,mpeg,mpegts,mpegvideo,ogg,gif,m4v,h264,"
    "hevc,mjpeg,rm,ivf,nut,wtv,dv,mxf,vob,obu,apng"
)

# Pillow is there: matplotlib needs it. The loop reads the duration of each frame.
WEBP_REMEDY = (
    "FFmpeg has no decoder of animated WebP; convert it to APNG and list that: "
    "python -c \"from PIL import Image, ImageSequence as S; i = Image.open('IN.webp'); "
    "i.save('OUT.png', save_all=True, "
    "duration=[f.load() and f.info['duration'] for f in S.Iterator(i)])\""
)


def _check_file(path: Path) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise BadVideo("missing", "no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadVideo("not_a_file", "neither a regular file nor a folder of JPEG frames")
    if status.st_size == 0:
        raise BadVideo("empty", "the file has 0 bytes")
    with open(path, "rb"):  # a permission error is not the video's fault
        pass


def _is_animated_webp(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(64)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP" and b"ANIM" in head


def describe_error(error: Exception) -> str:
    """Return FFmpeg's text of an error, without the path."""
    text = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    return f"{text} ({log[2].strip()})" if log else str(text)


@contextmanager
def capture_ffmpeg_log() -> Iterator[list[tuple[int, str, str]]]:
    """Collect FFmpeg's log messages of this thread as (level, name, text).

    PyAV drops them otherwise.
    """
    level, repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_skip_repeated(repeated)
        av.logging.set_level(level)


@contextmanager
def open_container(path: Path, **options: str) -> Iterator[Any]:
    """Open a file with options of its demuxer. Raises BadVideo if FFmpeg cannot read it."""
    _check_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS} | options
    try:
        with capture_ffmpeg_log():
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise_limit(error)
        if _is_animated_webp(path):
            raise BadVideo("unsupported", WEBP_REMEDY) from None
        raise BadVideo("unreadable", describe_error(error)) from None
    with container:
        yield container


@contextmanager
def open_video(path: Path, index: int) -> Iterator[tuple[Any, Any]]:
    """Open a file for one decoding thread; the value is (container, stream with this index).

    Raises BadVideo if FFmpeg cannot read a video from it.
    """
    with open_container(path) as container:
        stream = container.streams[index]
        stream.codec_context.thread_count = 1
        yield container, stream
