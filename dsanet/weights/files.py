"""Reads a file of weights without running anything that is in it.

Files of torch.save are read with `weights_only=True`. What they hold besides tensors and plain
values, such as the history of a log, becomes an empty object: torch names each class or function
that it does not allow, and an inert class stands for each of those names.
"""

from __future__ import annotations

import os
import pickle
import re
import stat
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from dsanet.errors import ModelError, printable

LARGEST = 8 << 30  # bytes; the largest network of this package has 0.13 GB
MOST_TYPES = 100  # classes and functions that may be replaced in one file
SHOWN = 120  # characters of a name, or of another library's message


@dataclass(frozen=True)
class WeightsFile:
    """The content of a file of weights.

    Attributes:
        path: the file.
        content: what torch.save wrote, or the tensors of a safetensors file by name.
        metadata: of a safetensors file.
        ignored: classes and functions that the file names and that were not used.
    """

    path: Path
    content: Any
    metadata: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def read_file(path: Path, *, inert: bool = True) -> WeightsFile:
    """Read a file of torch.save or safetensors onto the CPU.

    The size of everything in it is checked against the size of the file before memory is taken.

    inert: replace what is neither a tensor nor a plain value by an empty object; otherwise a file
    with such content is refused.

    Raises:
        ModelError: when it is missing, not a regular file, damaged, or not a file of weights.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(64)
        file.seek(0)
        if size > LARGEST:
            raise ModelError(
                f"{path}: has {size / 2**30:.1f} GiB, more than weights can have "
                f"({LARGEST / 2**30:.0f} GiB); check the path"
            )
        if _is_safetensors(head, size):
            return _read_safetensors(path)
        if head.startswith(b"PK\x03\x04"):
            _check_members(file, path, size)
        elif not head.startswith(b"\x80"):  # the first byte of a pickle, in old files of torch.save
            raise ModelError(f"{path}: {_what_is(head)}")
        with _one_line_errors(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load(file, path) if inert else WeightsFile(path, _torch_load(file))


@contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file; a pipe or a device, which could block for ever, is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such weights file; check the path") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ModelError(f"{path}: is not a regular file; give the path of a weights file")
        os.set_blocking(descriptor, True)
        yield file


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON header, and the header's first byte."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8


def _what_is(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch it with git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not the file itself; download it again, from the file's own address"
    return "is not a file of torch.save or safetensors; check the path, or copy it again"


def _check_members(file: IO[bytes], path: Path, size: int) -> None:
    """Refuse a zip archive whose content needs more memory than its size on disk."""
    try:
        members = zipfile.ZipFile(file).infolist()
    # All that zipfile raises for a damaged directory, or for features that it lacks.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: is damaged or incomplete; copy it again") from error
    finally:
        file.seek(0)
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            name = printable(member.filename, SHOWN)
            raise ModelError(
                f"{path}: {name} in it is compressed, which torch.save never does; save it again"
            )
    claimed = sum(member.file_size for member in members)
    if claimed > size:
        raise ModelError(
            f"{path}: claims {claimed} bytes of content, the file has {size}; copy it again"
        )


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ModelError(f"{path}: needs the package safetensors: pip install safetensors") from (
            error
        )
    with _one_line_errors(path), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return WeightsFile(path, tensors, dict(file.metadata() or {}))


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn what a damaged file leads its library to, of many kinds, into one line."""
    try:
        yield
    except ModelError:
        raise
    except pickle.UnpicklingError as error:  # torch's message advises to load it without the check
        raise ModelError(
            f"{path}: not a torch.save file, or one that holds more than tensors, which could run "
            "code; if you trust it, save its state_dict alone"
        ) from error
    except MemoryError as error:
        raise ModelError(f"{path}: claims more content than fits into memory") from error
    except Exception as error:
        lines = str(error).splitlines()
        reason = printable(lines[0], SHOWN) if lines else type(error).__name__
        raise ModelError(f"{path}: cannot be read as weights ({reason}); copy it again") from error


def _torch_load(file: IO[bytes]) -> Any:
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


class Inert:
    """An empty object in place of one that a file of weights may not create.

    is_filled: the class makes dicts or lists instead, because the file fills in their items.
    """

    is_filled = False

    def __new__(cls, *args: object, **kwargs: object) -> Any:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _inert(name: str, kind: type | None = None) -> type[Inert]:
    """A class that stands for `name`; its objects are inert, or empty dicts or lists.

    torch fills the items of a dict or list into these types alone.
    """
    members: dict[str, Any] = {"__module__": "inert"}
    if kind is not None:
        members |= {"__new__": lambda cls, *args, **kwargs: kind(), "is_filled": True}
    return type(name, (Inert,), members)


def _load(file: IO[bytes], path: Path) -> WeightsFile:
    """Load a file of torch.save with inert objects for all that torch does not allow."""
    replacements = {name: _inert(name) for name in _unsafe_globals(file)}
    while len(replacements) <= MOST_TYPES:
        allowed: Any = [(kind, name) for name, kind in replacements.items()]
        with torch.serialization.safe_globals(allowed):
            try:
                content = _torch_load(file)
            except pickle.UnpicklingError as error:
                if not _replace(replacements, str(error)):
                    raise
            else:
                return WeightsFile(path, content, ignored=tuple(sorted(replacements)))
    raise ModelError(f"{path}: names more than {MOST_TYPES} kinds of objects; save its state_dict")


def _unsafe_globals(file: IO[bytes]) -> list[str]:
    """Names that torch does not allow; for its older format they are found one by one."""
    if not zipfile.is_zipfile(file):
        return []
    file.seek(0)
    return torch.serialization.get_unsafe_globals_in_checkpoint(file)


def _replace(replacements: dict[str, type[Inert]], message: str) -> bool:
    """Add or change the replacement that torch's message asks for; whether there was one."""
    if match := re.search(r"GLOBAL (\S+) was not an allowed global", message):
        name = match[1] if "." in match[1] else f"builtins.{match[1]}"
        if name in replacements:
            return False
        replacements[name] = _inert(name)
        return True
    match = re.search(r"Can only (\w+) .*?<class 'inert\.(.+?)'>", message)
    if match is None or not (replacement := replacements.get(match[2])) or replacement.is_filled:
        return False
    kind = OrderedDict if match[1].startswith("SETITEM") else list
    replacements[match[2]] = _inert(match[2], kind)
    return True
