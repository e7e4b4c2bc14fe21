"""Stores sources that already have the requested format without encoding them again."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

from shards.encode import mp4
from shards.encode.container import open_video
from shards.encode.jpeg_folder import JpegFolder, read_jpeg_header
from shards.encode.normalise import FrameProperties, frame_properties
from shards.encode.strict_decoder import StrictDecoder
from shards.encode.transcode import BlackRuns, WrittenVideo, check_complete, check_length
from shards.encode.unshown import holds_idr_picture
from shards.errors import BadVideo
from shards.format.settings import ShardSettings, Source
from shards.format.tars import Window

BT601 = (2, 5, 6)  # AVColorSpace: unspecified, BT.470 BG, SMPTE 170M
LIMITED = (0, 1)  # AVColorRange: unspecified, limited


def remux_jpegs(folder: JpegFolder, settings: ShardSettings, window: Window) -> WrittenVideo:
    """Store the JPEGs of a folder bit for bit. Raises BadVideo if one cannot be decoded."""
    size = folder.headers[0].width, folder.headers[0].height
    video = mp4.VideoFormat("mjpeg", *size, folder.rate)
    writer = mp4.Mp4Writer(window, video, settings)
    black = BlackRuns(folder.rate)
    for data, frame in folder.decoded_jpegs():
        black.add_frame(frame, writer.count)
        writer.write_jpeg(data)
    notes = check_complete(folder.fault, "", writer.count, settings)
    writer.close()
    black.close_run(writer.count)
    return WrittenVideo(writer.count, folder.rate, size, size, True, notes + black.notes())


def find_copy_obstacle(decoder: StrictDecoder, source: Source, settings: ShardSettings) -> str:
    """Return why the packets of a file cannot be stored as they are; "" if they can."""
    probed = decoder.probe_result
    if probed.codec != settings.codec:
        return f"the codec is {probed.codec}"
    if source.start is not None:
        return "a segment is asked for"
    if not probed.constant or settings.rate not in (None, probed.rate):
        return "the frame rate is not constant, or not the asked one"
    if probed.damage:
        return probed.damage
    try:
        _, frame = next(iter(decoder.frames(None, None)))
        properties = frame_properties(frame, decoder.aspect)
    except (BadVideo, StopIteration):
        return "its first frame is not good"
    return _find_format_obstacle(properties, settings) or _find_packet_obstacle(decoder, settings)


def _find_format_obstacle(properties: FrameProperties, settings: ShardSettings) -> str:
    video = settings.codec != "mjpeg"
    if properties.aspect != 1 or properties.orientation != (1, 0, 0, 1) or properties.interlaced:
        return "the frames are not upright, square and progressive"
    if min(properties.width, properties.height) > settings.short_side:
        return f"the short side is over {settings.short_side}"
    step = 16 if video else 2
    if properties.width % step or properties.height % step:
        return f"the sides are no multiples of {step}"
    if (
        properties.format != ("yuv420p" if video else "yuvj420p")
        or properties.colorspace not in BT601
    ):
        return "the pixels are not 8-bit 4:2:0 BT.601"
    if video and properties.color_range not in LIMITED:
        return "the range is not limited"
    return ""


def _packets(decoder: StrictDecoder) -> Iterator[Any]:
    with open_video(decoder.path, decoder.probe_result.stream) as (container, stream):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _find_packet_obstacle(decoder: StrictDecoder, settings: ShardSettings) -> str:
    packets = [(p.pts, p.is_keyframe, p.is_discard, bytes(p)) for p in _packets(decoder)]
    if any(discard for _, _, discard, _ in packets):
        return "an edit list drops frames"
    if settings.codec == "mjpeg":
        headers = [read_jpeg_header(data) for *_, data in packets]
        valid = all(h.is_baseline_420 and h.orientation == 1 for h in headers)
        return "" if valid else "not every frame is an upright baseline 4:2:0 JPEG"
    if any(b[0] is None or a[0] is None or b[0] <= a[0] for a, b in pairwise(packets)):
        return "it has B-frames"
    for number, (_, key, _, data) in enumerate(packets):
        closed = key and holds_idr_picture(data, settings.codec)
        if closed != (number % settings.gop == 0):
            return f"its GOPs are not closed, or not {settings.gop} frames long"
    return ""


def copy_packets(decoder: StrictDecoder, settings: ShardSettings, window: Window) -> WrittenVideo:
    """Store the packets of a file as they are. Raises BadVideo if they do not all decode."""
    rate, count, size = decoder.probe_result.rate, 0, (0, 0)
    black = BlackRuns(rate)
    for _, frame in decoder.frames(None, None):
        black.add_frame(frame, count)
        size, count = (frame.width, frame.height), count + 1
    check_length(count, rate, settings)
    notes = check_complete(decoder.fault, decoder.probe_result.damage, count, settings)
    if notes:
        raise BadVideo("corrupt", f"{decoder.fault} (a damaged file cannot be copied)")
    _copy_stream(decoder, settings.codec, rate, window)
    black.close_run(count)
    return WrittenVideo(count, rate, size, size, True, black.notes())


def _copy_stream(decoder: StrictDecoder, codec: str, rate: Fraction, window: Window) -> None:
    with open_video(decoder.path, decoder.probe_result.stream) as (container, stream):
        output = mp4.open_output(window, codec)
        copied = output.add_stream_from_template(stream)
        copied.time_base = 1 / rate
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            packet.stream, packet.time_base = copied, 1 / rate
            packet.pts = packet.dts = number
            packet.duration = 1
            output.mux(packet)
        output.close()
