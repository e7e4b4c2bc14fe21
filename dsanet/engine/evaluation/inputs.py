"""Finding the video files that a user names: files, folders, patterns and addresses."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from dsanet.engine.errors import EngineError

# Files of a folder with other endings are left out.
SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})  # fmt: skip
MAX_DOWNLOAD = 16 << 30  # bytes of one file


@dataclass(frozen=True)
class VideoFile:
    """A video to predict: its name as the user knows it, and its file on this machine."""

    name: str
    path: Path


def find_videos(words: Sequence[str], downloads: Path) -> list[VideoFile]:
    """Find the video files that words name, in their order, each once.

    words: files; folders, with all videos inside; patterns such as `clips/*.mp4`; addresses
        (https://, s3://, ...), which are fetched.
    downloads: folder for what is fetched.

    Raises:
        EngineError: when a word names nothing, or an address cannot be fetched.
    """
    videos: dict[str, VideoFile] = {}
    for word in words:
        for video in _expand(word, downloads):
            videos.setdefault(video.name, video)
    return list(videos.values())


def _expand(word: str, downloads: Path) -> list[VideoFile]:
    if "://" in word:
        return [VideoFile(word, _fetch(word, downloads))]
    path = Path(word)
    if path.is_dir():
        files = videos_in(path)
        if not files:
            raise EngineError(f"{path}: no videos in this folder; give video files")
        return [VideoFile(str(file), file) for file in files]
    if not path.exists() and glob.has_magic(word):
        files = [Path(name) for name in sorted(glob.glob(word, recursive=True))]
        files = [file for file in files if file.is_file()]
        if not files:
            raise EngineError(f"{word}: no file matches this pattern; give video files")
        return [VideoFile(str(file), file) for file in files]
    if not path.is_file():
        reason = "not a regular file" if path.exists() else "no such file"
        raise EngineError(f"{path}: {reason}; give video files")
    return [VideoFile(word, path)]


def videos_in(folder: Path) -> list[Path]:
    """Regular files below a folder whose names end like those of videos, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _fetch(address: str, downloads: Path) -> Path:
    """Fetch the file at an address into a folder of its own.

    Raises:
        EngineError: when it cannot be fetched or is larger than `MAX_DOWNLOAD`.
    """
    try:
        import fsspec
    except ImportError as error:
        raise EngineError(
            f"{address}: addresses need fsspec; pip install 'dsanet[remote]'"
        ) from error
    folder = downloads / str(sum(1 for _ in downloads.iterdir()))
    folder.mkdir()
    # The name is only for messages: a server has no say in where the file goes.
    path = folder / (PurePosixPath(urlsplit(address).path).name.lstrip(".") or "video")
    try:
        with fsspec.open(address, "rb") as source, path.open("wb") as file:
            while block := source.read(1 << 20):
                file.write(block)
                if file.tell() > MAX_DOWNLOAD:
                    raise EngineError(f"{address}: larger than {MAX_DOWNLOAD >> 30} GiB")
    except EngineError:
        raise
    except Exception as error:  # each kind of store raises errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EngineError(f"{address}: cannot be fetched ({reason}); check the address") from error
    return path
