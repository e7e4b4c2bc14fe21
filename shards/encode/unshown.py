"""Separates errors that can show in a frame from those in packets that are never shown.

A clip that was cut without decoding begins before its first shown frame: with packets that an edit
list hides, or at a keyframe of an open group of pictures, whose leading pictures (decoded after the
keyframe, displayed before it) refer to frames that the clip does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# H.264 marks a picture from before the cut as unused; the frame itself is complete then.
ABSENT_REFERENCE = "mmco: unref short failure"
IDR = {"h264": {5}, "hevc": {19, 20}}  # NAL types of pictures that later frames never refer behind


def nal_headers(data: bytes, codec: str) -> list[tuple[int, bool]]:
    """Return (type, whether others may refer to it) of the pictures in a packet.

    The packet has NAL units with 4-byte lengths, as in mp4, or with start codes, as in MPEG-TS;
    [] for one that has neither, because it is damaged.
    """
    heads, position = [], 0
    while position + 5 <= len(data):
        heads.append(data[position + 4])
        position += 4 + int.from_bytes(data[position : position + 4], "big")
    if position != len(data):  # these are no lengths
        heads = [unit[0] for unit in data.split(b"\0\0\1")[1:] if unit]
    if codec == "h264":
        return [(head & 31, bool(head & 0x60)) for head in heads if 1 <= head & 31 <= 5]
    # H.265: types up to 15 with an even number are pictures that no other refers to.
    kinds = [head >> 1 & 63 for head in heads]
    return [(kind, kind > 15 or kind % 2 == 1) for kind in kinds if kind < 32]


def holds_idr_picture(data: bytes, codec: str) -> bool:
    """Whether a keyframe packet contains a picture that no later frame refers behind."""
    return codec not in IDR or any(kind in IDR[codec] for kind, _ in nal_headers(data, codec))


@dataclass
class _Damage:
    """An error in a packet that is not shown, and where it is."""

    error: str
    keyframe: int
    leading: bool


class UnshownErrors:
    """Decides which decoding errors count, packet by packet in the order of decoding.

    An error counts where its frame is shown, or where a shown frame may refer to it: after a
    trailing picture, all frames up to the next keyframe and the leading pictures of that; after a
    leading one, the other leading pictures of its keyframe.
    """

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self._keyframes = 0
        self._key_time: int | None = None
        self._damage: _Damage | None = None

    def advance(self, packet: Any) -> None:
        """Take a packet as the next one; `verdict` on it follows."""
        if packet.is_keyframe:
            self._keyframes += 1
            self._key_time = packet.pts

    @property
    def in_first_group(self) -> bool:
        """Whether no second keyframe has come yet."""
        return self._keyframes <= 1

    def verdict(self, packet: Any, error: str) -> str:
        """Return the error that shows in a packet, its own or an earlier one; "" for none."""
        leading = self._is_leading(packet)
        absent = leading and self._keyframes == 1  # its references are from before the file
        if absent:
            return ""
        if not packet.is_discard:
            return error or self._earlier_error(leading)
        if error and self._is_reference(packet):
            self._damage = _Damage(error, self._keyframes, leading)
        return ""

    def _is_leading(self, packet: Any) -> bool:
        if packet.pts is None or self._key_time is None:
            return False
        return bool(packet.pts < self._key_time)

    def _is_reference(self, packet: Any) -> bool:
        """Whether other frames may refer to the pictures of a packet."""
        if self.codec not in IDR:
            return True
        headers = nal_headers(bytes(packet), self.codec)
        return not headers or any(reference for _, reference in headers)

    def _earlier_error(self, leading: bool) -> str:
        """The error of an unshown picture that a frame without one of its own may refer to."""
        damage = self._damage
        if damage is None:
            return ""
        keyframes = self._keyframes - damage.keyframe
        refers = leading == damage.leading if keyframes == 0 else leading and not damage.leading
        return damage.error if refers and keyframes <= 1 else ""
