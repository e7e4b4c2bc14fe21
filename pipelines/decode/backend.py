"""The one door to decoding: which head of the graph serves a codec on a device."""

from __future__ import annotations

from pipelines.config import LoaderConfig
from pipelines.decode.decoder import usable_cores
from pipelines.decode.graph import GraphSpec
from pipelines.errors import LoaderUsageError

# What DALI's video decoder takes without a GPU; everything else there is PyAV's.
VIDEO_ON_CPU = ("mjpeg", "vp9", "vp8")
HEADS = {"image": "image", "video": "video", "pyav": "frames"}


def choose_decode(codec: str, device: str, config: LoaderConfig) -> str:
    """`image`, `video` or `pyav` for this codec and device; an override that cannot work raises."""
    on_gpu = device != "cpu" and config.decode_on != "cpu"
    alone = config.reader == "webdataset"  # DALI alone: no PyAV
    chosen = config.decode
    if chosen == "auto":
        if codec == "mjpeg":
            return "image"
        chosen = "video" if alone or on_gpu or codec in VIDEO_ON_CPU else "pyav"
    if chosen == "image" and codec != "mjpeg":
        raise LoaderUsageError(
            f"loader.decode image needs mjpeg shards, these are {codec}: use video or pyav"
        )
    if chosen == "video" and not on_gpu and codec not in VIDEO_ON_CPU:
        remedy = "loader.reader frames" if alone else "loader.decode pyav"
        raise LoaderUsageError(
            f"DALI cannot decode {codec} on a CPU: use {remedy}, or shard as mjpeg"
        )
    return chosen


def graph_spec(
    decode: str, device: str, config: LoaderConfig, *, videos: int, frames: int, size: int,
    crops: int = 1, flip: bool = False, colour: bool = False,
) -> GraphSpec:  # fmt: skip
    """The graph for batches of `videos` with `frames` frames each."""
    on_gpu = device != "cpu" and config.decode_on != "cpu"
    if device == "cpu" and config.decode_on == "gpu":
        raise LoaderUsageError("loader.decode_on gpu needs a CUDA device: use auto")
    if decode == "pyav" and config.decode_on == "gpu":
        raise LoaderUsageError("loader.decode pyav is on the CPU: use video, or decode_on auto")
    resize = config.resize if config.resize != "auto" else ("dali" if on_gpu else "torch")
    if on_gpu and resize == "torch":
        raise LoaderUsageError("loader.resize torch is for decoding on the CPU: use auto")
    # A JPEG's box is decoded alone on a CPU; the GPU's hardware engines only do whole images.
    roi = config.roi_decode if config.roi_decode is not None else not on_gpu
    return GraphSpec(
        head=HEADS[decode],
        batch=videos * (frames if decode == "image" else 1),
        size=size,
        crops=crops,
        flip=flip,
        colour=colour,
        resize=resize == "dali",
        roi_decode=roi and decode == "image" and crops == 1,
        threads=config.threads or min(16, usable_cores()),
        device_id=_device_id(device) if on_gpu else None,
        gpu_decode=decode != "pyav",
    )


def _device_id(device: str) -> int:
    return int(device.partition(":")[2] or 0)
