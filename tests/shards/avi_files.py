"""AVI files written chunk by chunk, with dropped frames where a test wants them."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

N_VOP = 0b01  # a picture of type P that is not coded: the one before is shown again


def encode(frames: list[np.ndarray], codec: str, **options: str) -> list[bytes]:
    """The packets of RGB frames (H, W, 3), in the order of decoding; headers in the first one."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options = {"qmin": "2", "qmax": "4", "flags": "+bitexact"} | options
    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
    for number, picture in enumerate(pictures):
        picture.pts, picture.time_base = number, Fraction(1, 25)
    return [bytes(packet) for p in [*pictures, None] for packet in encoder.encode(p)]


def n_vop(time: int) -> bytes:
    """An MPEG-4 packet without a picture, at this tick of a second of 25."""
    bits = f"{N_VOP:02b}" + "0" + "1" + f"{time % 25:05b}" + "1" + "0"
    bits += "0" + "1" * (-len(bits) % 8 - 1) if len(bits) % 8 else "01111111"
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def pack_b_frames(packets: list[bytes]) -> list[bytes]:
    """The packets I, P, B, P, B, ... as Xvid packs them: I, P and B, none, P and B, none, ..."""
    header = b"\0\0\1\xb2DivX503b1393p"  # "p" for packed
    at = packets[0].index(b"\0\0\1\xb6")
    chunks = [packets[0][:at] + header + packets[0][at:]]
    for number in range(1, len(packets) - 1, 2):
        chunks += [packets[number] + packets[number + 1], n_vop(number)]
    return chunks


def write_avi(path: Path, chunks: list[bytes | None], fourcc: bytes, size: tuple[int, int]) -> Path:
    """Write an AVI of 25 frames a second; None stands for a frame that only the index has."""
    width, height = size
    count = len(chunks)
    avih = struct.pack("<14I", 40_000, 0, 0, 0x10, count, 0, 1, 1 << 20, width, height, *[0] * 4)
    strh = struct.pack("<4s4sIHHIIIIIIII4H", b"vids", fourcc, 0, 0, 0, 0, 1, 25, 0, count, 1 << 20,
                       0xFFFFFFFF, 0, 0, 0, width, height)  # fmt: skip
    strf = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, fourcc, width * height * 3, 0, 0,
                       0, 0)  # fmt: skip
    movi, index = b"movi", b""
    for chunk in chunks:
        index += struct.pack("<4sIII", b"00dc", 0x10 if chunk else 0, len(movi), len(chunk or b""))
        movi += _chunk(b"00dc", chunk) if chunk is not None else b""
    strl = _chunk(b"LIST", b"strl" + _chunk(b"strh", strh) + _chunk(b"strf", strf))
    hdrl = _chunk(b"LIST", b"hdrl" + _chunk(b"avih", avih) + strl)
    path.write_bytes(
        _chunk(b"RIFF", b"AVI " + hdrl + _chunk(b"LIST", movi) + _chunk(b"idx1", index))
    )
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)
