"""Store what already is as a shard wants it, without encoding it again."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av

from shards.encode import mp4
from shards.encode.jpeg_folder import JpegFolder, read_header
from shards.encode.normalise import Look, look
from shards.encode.probe import open_video
from shards.encode.strict_decoder import Decoder
from shards.encode.transcode import BlackRuns, Made, check_length, judge
from shards.errors import BadVideo
from shards.format.settings import ShardSettings, Source
from shards.format.tars import Window

BT601 = (2, 5, 6)  # AVColorSpace: unspecified, BT.470 BG, SMPTE 170M
LIMITED = (0, 1)  # AVColorRange: unspecified, limited
IDR = {"h264": {5}, "hevc": {19, 20}}  # NAL types that no later frame looks behind


def remux_jpegs(folder: JpegFolder, settings: ShardSettings, window: Window) -> Made:
    """Store a folder's JPEGs bit for bit. Raises BadVideo where one cannot be decoded."""
    head = folder.headers[0]
    stream = mp4.Stream("mjpeg", head.width, head.height, folder.rate)
    writer = mp4.Mp4Writer(window, stream, settings)
    black = BlackRuns(folder.rate)
    for data, frame in folder.pictures():
        black.see(frame, writer.count)
        writer.write_jpeg(data)
    notes = judge(folder.fault, "", writer.count, settings)
    writer.close()
    black.end(writer.count)
    size = (head.width, head.height)
    return Made(writer.count, folder.rate, size, size, True, notes + black.notes())


def why_not_copy(decoder: Decoder, source: Source, settings: ShardSettings) -> str:
    """Why a file's packets are not what is asked for; "" if they are."""
    found = decoder.found
    if found.codec != settings.codec:
        return f"the codec is {found.codec}"
    if source.start is not None:
        return "a segment is asked for"
    if not found.constant or settings.rate not in (None, found.rate):
        return "the frame rate is not constant, or not the asked one"
    if found.damaged:
        return found.damaged
    try:
        _, frame = next(iter(decoder.frames(None, None)))
        seen = look(frame, decoder.aspect)
    except (BadVideo, StopIteration):
        return "its first frame is not good"
    return _why_not_look(seen, settings) or _why_not_packets(decoder, settings)


def _why_not_look(seen: Look, settings: ShardSettings) -> str:
    video = settings.codec != "mjpeg"
    if seen.aspect != 1 or seen.orientation != (1, 0, 0, 1) or seen.interlaced:
        return "the frames are not upright, square and progressive"
    if min(seen.width, seen.height) > settings.short_side:
        return f"the short side is over {settings.short_side}"
    step = 16 if video else 2
    if seen.width % step or seen.height % step:
        return f"the sides are no multiples of {step}"
    if seen.format != ("yuv420p" if video else "yuvj420p") or seen.colorspace not in BT601:
        return "the pixels are not 8-bit 4:2:0 BT.601"
    if video and seen.color_range not in LIMITED:
        return "the range is not limited"
    return ""


def _packets(decoder: Decoder) -> Iterator[Any]:
    with open_video(decoder.path) as (container, stream):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _why_not_packets(decoder: Decoder, settings: ShardSettings) -> str:
    packets = [(p.pts, p.is_keyframe, p.is_discard, bytes(p)) for p in _packets(decoder)]
    if any(discard for _, _, discard, _ in packets):
        return "an edit list drops frames"
    if settings.codec == "mjpeg":
        heads = [read_header(data) for *_, data in packets]
        plain = all(head.baseline_420 and head.orientation == 1 for head in heads)
        return "" if plain else "not every frame is an upright baseline 4:2:0 JPEG"
    if any(b[0] is None or a[0] is None or b[0] <= a[0] for a, b in pairwise(packets)):
        return "it has B-frames"
    for number, (_, key, _, data) in enumerate(packets):
        closed = key and _starts_afresh(data, settings.codec)
        if closed != (number % settings.gop == 0):
            return f"its GOPs are not closed, or not {settings.gop} frames long"
    return ""


def _starts_afresh(data: bytes, codec: str) -> bool:
    """Whether a keyframe packet with 4-byte NAL lengths holds an IDR picture."""
    if codec not in IDR:
        return True
    at = 0
    while at + 5 <= len(data):
        kind = data[at + 4] & 31 if codec == "h264" else data[at + 4] >> 1 & 63
        if kind in IDR[codec]:
            return True
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return False


def copy_packets(decoder: Decoder, settings: ShardSettings, window: Window) -> Made:
    """Check by decoding, then store the packets as they are. Raises BadVideo."""
    rate, count, size = decoder.found.rate, 0, (0, 0)
    black = BlackRuns(rate)
    for _, frame in decoder.frames(None, None):
        black.see(frame, count)
        size, count = (frame.width, frame.height), count + 1
    check_length(count, rate, settings)
    notes = judge(decoder.fault, decoder.found.damaged, count, settings)
    if notes:
        raise BadVideo("corrupt", f"{decoder.fault} (a damaged file cannot be copied)")
    _mux_as_is(decoder, settings.codec, rate, window)
    black.end(count)
    return Made(count, rate, size, size, True, black.notes())


def _mux_as_is(decoder: Decoder, codec: str, rate: Fraction, window: Window) -> None:
    options = mp4.container_options(codec)
    with open_video(decoder.path) as (container, stream):
        output: Any = av.open(window, "w", format="mp4", options=options)
        copied = output.add_stream_from_template(stream)
        copied.time_base = 1 / rate
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            packet.stream, packet.time_base = copied, 1 / rate
            packet.pts = packet.dts = number
            packet.duration = 1
            output.mux(packet)
        output.close()
