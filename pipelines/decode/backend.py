"""Which decoder and which graph serve a codec on a device."""

from __future__ import annotations

from typing import Literal

from dsanet.errors import require
from pipelines.config import LoaderConfig
from pipelines.decode.decoder import usable_cores
from pipelines.decode.graph import GraphSpec
from pipelines.errors import LoaderUsageError

Backend = Literal["image", "video", "pyav"]
# Codecs that DALI's video decoder takes on a CPU; PyAV decodes all others there.
VIDEO_ON_CPU = ("mjpeg", "vp9", "vp8")
GRAPH_INPUT: dict[Backend, Literal["jpeg", "mp4", "pixels"]] = {
    "image": "jpeg",
    "video": "mp4",
    "pyav": "pixels",
}
CPU_THREADS = 16  # at most: a batch decodes hardly faster on more
# On a GPU a thread drives a decoder instead of decoding, and DALI's mixed decoders have a second
# pool of as many. An H100 has seven NVDEC engines, each fed by a thread.
GPU_THREADS: dict[Backend, int] = {"image": 4, "video": 8, "pyav": 4}


def choose_decode(codec: str, device: str, config: LoaderConfig) -> Backend:
    """Choose the decoder of a codec on a device.

    LoaderUsageError where `config` asks for one that cannot decode it there.
    """
    on_gpu = device != "cpu" and config.decode_on != "cpu"
    dali_only = config.reader == "webdataset"
    dali_decodes = on_gpu or codec in VIDEO_ON_CPU
    if config.decode == "auto":
        if codec == "mjpeg":
            return "image"
        backend: Backend = "video" if dali_only or dali_decodes else "pyav"
    else:
        backend = config.decode
    if backend == "image":
        must = f"be video or pyav for {codec} shards"
        _require(codec == "mjpeg", "decode", must, backend)
    if backend == "video" and not dali_decodes:
        where = f"for {codec} shards on a CPU (or shard as mjpeg)"
        _require(not dali_only, "reader", f"be frames {where}", config.reader)
        _require(False, "decode", f"be pyav {where}", backend)
    return backend


def graph_spec(
    decode: Backend, device: str, config: LoaderConfig, *, videos: int, frames: int, size: int,
    crops: int = 1, flip: bool = False, colour: bool = False,
) -> GraphSpec:  # fmt: skip
    """Describe the graph for batches of `videos` with `frames` frames each.

    LoaderUsageError where `config` asks for what the device or the decoder cannot do.
    """
    on_gpu = device != "cpu" and config.decode_on != "cpu"
    if config.decode_on == "gpu":
        _require(device != "cpu", "decode_on", "be auto or cpu without a CUDA device", "gpu")
        _require(decode != "pyav", "decode_on", "be auto or cpu with loader.decode pyav", "gpu")
    resize = config.resize if config.resize != "auto" else ("dali" if on_gpu else "torch")
    if on_gpu:
        must = "be auto or dali when decoding on a GPU"
        _require(resize == "dali", "resize", must, resize)
    # The GPU's hardware JPEG engines decode whole images only.
    roi = config.roi_decode if config.roi_decode is not None else not on_gpu
    return GraphSpec(
        input=GRAPH_INPUT[decode],
        batch=videos * (frames if decode == "image" else 1),
        size=size,
        crops=crops,
        flip=flip,
        colour=colour,
        resize=resize == "dali",
        roi_decode=roi and decode == "image" and crops == 1,
        threads=config.threads or decode_threads(decode, on_gpu),
        device_id=_device_id(device) if on_gpu else None,
        gpu_decode=decode != "pyav",
        hw_load=config.hw_load,
        resize_batch=config.resize_batch,
    )


def decode_threads(decode: Backend, on_gpu: bool) -> int:
    """Threads of the graph where the configuration does not say."""
    return min(GPU_THREADS[decode] if on_gpu else CPU_THREADS, usable_cores())


def _device_id(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _require(condition: bool, name: str, must: str, value: object) -> None:
    require(condition, f"loader.{name}", must, value, LoaderUsageError)
