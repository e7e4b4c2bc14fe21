"""The DALI graph that turns encoded frames, crop boxes and flips into cropped uint8 frames.

    input -> decode -> slice -> flip -> colour -> resize

It is the same on a CPU and on a GPU (`device="mixed"`, with all later nodes on the GPU). A sample
of the DALI batch is one `jpeg` frame, one `mp4` file with the numbers of the wanted frames, or the
decoded `pixels` of one video. The first is decoded to (H, W, 3), the others to (F, H, W, 3).

On a CPU the graph ends before the resize, and `cpu_resize.py` crops (unless the decoder did),
resizes and flips: DALI's CPU resize takes longer than decoding the JPEG, torch's uint8 kernel a
small part of that (figures in docs/loader.md). The two differ by at most one level of 255.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dsanet.limits import raise_limit
from pipelines.errors import LoaderError

COLOURS = ("brightness", "contrast", "saturation", "hue")
# The index, the boxes and FFmpeg ignore EXIF orientation, so DALI must not apply it either.
AS_STORED = {"adjust_orientation": False}
# Chroma is interpolated, as libjpeg does on a CPU; nvJPEG alone would repeat the nearest value, and
# a network trained on a GPU would see other pixels on a CPU.
JPEG_SETTINGS = AS_STORED | {"jpeg_fancy_upsampling": True}


@dataclass(frozen=True)
class GraphSpec:
    """Properties of a graph.

    input: what a sample of the DALI batch is. batch: samples of the DALI batch, which are frames
    for `jpeg` and videos otherwise. size: side of the clips in pixels. hw_load, resize_batch: see
    `LoaderConfig`.
    """

    input: Literal["jpeg", "mp4", "pixels"]
    batch: int
    size: int
    crops: int = 1
    flip: bool = False
    colour: bool = False
    resize: bool = True
    roi_decode: bool = False
    threads: int = 2
    device_id: int | None = None
    gpu_decode: bool = True
    hw_load: float | None = None
    resize_batch: int | None = None

    @property
    def mixed(self) -> bool:
        """Whether the decoder runs on the GPU."""
        return self.device_id is not None and self.gpu_decode

    @property
    def outputs_whole_frames(self) -> bool:
        """Whether whole frames leave the graph, so that the CPU resize also crops them."""
        return not (self.resize or self.roi_decode or self.colour)


@dataclass
class GraphInput:
    """Input of one iteration: n <= batch samples.

    encoded: n uint8 arrays, the bytes of a JPEG or mp4, or frames (F, H, W, 3). boxes (n, C, 4),
    flips (n,), colours (n, 4). For `mp4`, picks: the frame numbers (int32) to decode of each
    sample, each once, as a repeated one would restart the decoder; gathers: the index in picks
    (int32) of each of the F frames.
    """

    encoded: list[np.ndarray]
    boxes: np.ndarray
    flips: np.ndarray
    colours: np.ndarray
    picks: list[np.ndarray] | None = None
    gathers: list[np.ndarray] | None = None


def dali() -> Any:
    """Import nvidia.dali (typed Any: its stubs lack names).

    LoaderError names the package to install.
    """
    try:
        for name in ("fn", "types"):
            importlib.import_module(f"nvidia.dali.{name}")
        return importlib.import_module("nvidia.dali")
    except ImportError as error:
        raise_limit(error)
        raise LoaderError(
            f"NVIDIA DALI cannot be imported ({error}); pip install -e '.[cuda13]', or "
            "'.[cuda12]' for drivers older than 580"
        ) from None


def build_graph(spec: GraphSpec) -> Any:
    """Build the DALI pipeline of `spec`; `feed` passes its input."""

    @dali().pipeline_def(
        batch_size=spec.batch,
        num_threads=spec.threads,
        device_id=spec.device_id,
        exec_dynamic=True,  # usable again after a batch that raises
        exec_pipelined=False,  # otherwise the first run needs two batches at once
        prefetch_queue_depth=2,
    )
    def graph() -> Any:
        windows = [_window(crop) for crop in range(spec.crops)]
        frames = _decode(spec, windows[0])
        return crop_frames(frames, windows, _augmentation_inputs(spec), spec)

    pipeline = graph()
    pipeline.build()
    return pipeline


def _window(crop: int) -> tuple[Any, Any]:
    """Anchor and shape (y, x) of a crop, as inputs of the graph."""
    fn, types = dali().fn, dali().types
    anchor = fn.external_source(name=f"anchor{crop}", dtype=types.INT64, ndim=1)
    shape = fn.external_source(name=f"shape{crop}", dtype=types.INT64, ndim=1)
    return anchor, shape


def _decode(spec: GraphSpec, window: tuple[Any, Any]) -> Any:
    fn, types = dali().fn, dali().types
    if spec.input == "pixels":
        frames = fn.external_source(name="encoded", dtype=types.UINT8, ndim=4, layout="FHWC")
        return frames if spec.device_id is None else frames.gpu()
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    if spec.input == "mp4":
        return decode_mp4(encoded, spec)
    return decode_jpeg(encoded, window, spec)


def decode_mp4(encoded: Any, spec: GraphSpec) -> Any:
    """Decode frames (F, H, W, 3) of an mp4: those in input `picks`, in the order of `gather`."""
    fn, types = dali().fn, dali().types
    picks = fn.external_source(name="picks", dtype=types.INT32, ndim=1)
    device = "mixed" if spec.mixed else "cpu"
    frames = fn.decoders.video(encoded, frames=picks, device=device, pad_mode="none")
    gather = fn.external_source(name="gather", dtype=types.INT32, ndim=1)
    return _on_device(fn.sequence_rearrange(frames, new_order=gather), spec)


def decode_jpeg(encoded: Any, window: tuple[Any, Any], spec: GraphSpec) -> Any:
    """Decode a JPEG (H, W, 3), or with `roi_decode` only its window."""
    decoders, settings = dali().fn.decoders, {"output_type": dali().types.RGB} | JPEG_SETTINGS
    device = "mixed" if spec.mixed else "cpu"
    if spec.mixed and spec.hw_load is not None:
        settings |= {"hw_decoder_load": spec.hw_load}
    if spec.roi_decode:
        frames = decoders.image_slice(encoded, *window, axes=[0, 1], device=device, **settings)
    else:
        frames = decoders.image(encoded, device=device, **settings)
    return _on_device(frames, spec)


def _on_device(frames: Any, spec: GraphSpec) -> Any:
    return frames.gpu() if spec.device_id is not None and not spec.mixed else frames


def _augmentation_inputs(spec: GraphSpec) -> dict[str, Any]:
    """Flip flag and colour factors, as inputs of the graph."""
    fn, types = dali().fn, dali().types
    augmentation = {}
    if spec.flip:
        augmentation["flip"] = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
    if spec.colour:
        for name in COLOURS:
            augmentation[name] = fn.external_source(name=name, dtype=types.FLOAT, ndim=0)
    return augmentation


def crop_frames(
    frames: Any, windows: list[tuple[Any, Any]], augmentation: dict[str, Any], spec: GraphSpec
) -> tuple[Any, ...]:
    """Outputs of the graph: the crops of decoded frames.

    For `cpu_resize.py` the outputs are crops and flips, or whole frames, windows and flips.
    """
    flips = [augmentation["flip"]] if spec.flip and not spec.resize else []
    if spec.outputs_whole_frames:
        return frames, *(part for window in windows for part in window), *flips
    return *(_augment(frames, window, augmentation, spec) for window in windows), *flips


def _augment(
    frames: Any, window: tuple[Any, Any], augmentation: dict[str, Any], spec: GraphSpec
) -> Any:
    """Crop, flip, colour and resize decoded frames; augmentation: flip flag and colour factors."""
    fn, types = dali().fn, dali().types
    if not spec.roi_decode:
        axes = [0, 1] if spec.input == "jpeg" else [1, 2]
        frames = fn.slice(frames, *window, axes=axes)
    if spec.flip and spec.resize:
        frames = fn.flip(frames, horizontal=augmentation["flip"])
    if spec.colour:
        frames = fn.color_twist(frames, **{name: augmentation[name] for name in COLOURS})
    if spec.resize:
        # Bilinear without antialiasing, as in the released code.
        size, linear = [spec.size, spec.size], types.INTERP_LINEAR
        more = {} if spec.resize_batch is None else {"minibatch_size": spec.resize_batch}
        frames = fn.resize(frames, size=size, interp_type=linear, antialias=False, **more)
    return frames


def feed(pipeline: Any, spec: GraphSpec, inputs: GraphInput) -> None:
    """Pass the input of one iteration to the graph, which runs at the next `schedule_run`."""
    decoded = spec.input == "pixels"
    pipeline.feed_input("encoded", inputs.encoded if decoded else tensors(inputs.encoded))
    if inputs.picks is not None:
        pipeline.feed_input("picks", inputs.picks)
    if inputs.gathers is not None:
        pipeline.feed_input("gather", inputs.gathers)
    boxes = inputs.boxes.astype(np.int64)
    for crop in range(spec.crops):
        low, high = boxes[:, crop, :2], boxes[:, crop, 2:]
        pipeline.feed_input(f"anchor{crop}", np.ascontiguousarray(low))
        pipeline.feed_input(f"shape{crop}", high - low)
    if spec.flip:
        pipeline.feed_input("flip", inputs.flips.astype(np.int32))
    if spec.colour:
        for column, name in enumerate(COLOURS):
            pipeline.feed_input(name, np.ascontiguousarray(inputs.colours[:, column]))


def tensors(encoded: list[np.ndarray]) -> Any:
    """Encoded samples as a DALI tensor list, without a copy.

    DALI's own conversion of a list takes twice as long, and holds the interpreter's lock.
    """
    module = importlib.import_module("nvidia.dali.tensors")
    return module.TensorListCPU([module.TensorCPU(sample) for sample in encoded], contiguous=False)
