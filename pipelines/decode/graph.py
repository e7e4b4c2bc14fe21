"""The one DALI graph: encoded frames, boxes and flips in; cropped uint8 frames out.

    encoded -> decode -> slice -> flip -> colour -> resize

It is the same on a GPU (`device="mixed"`, all later nodes on the GPU) and on a CPU. Three heads
decode: `image` one JPEG per sample of the DALI batch; `video` one mp4 per sample, with the numbers
of the frames wanted; `frames` takes what PyAV has decoded. A sample of the first is a frame
(H, W, 3), one of the others a sequence (F, H, W, 3).

DALI's CPU resize costs more than decoding the JPEG and torch's uint8 kernel a small part of it
(figures in docs/loader.md), so on a CPU the graph ends before it and `cpu_resize.py` cuts (but for
ROI decoding), resizes and mirrors. The two differ by at most one level.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.errors import LoaderError

COLOURS = ("brightness", "contrast", "saturation", "hue")
# The index, the boxes and FFmpeg know nothing of an EXIF orientation, so DALI must not turn either.
AS_STORED = {"adjust_orientation": False}


@dataclass(frozen=True)
class GraphSpec:
    """What a graph is built for; `batch` counts samples of DALI (frames for the image head)."""

    head: Literal["image", "video", "frames"]
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

    @property
    def mixed(self) -> bool:
        """Whether the decoder runs on the GPU."""
        return self.device_id is not None and self.gpu_decode

    @property
    def cut_later(self) -> bool:
        """Whether whole frames leave the graph, and the crops are cut where they are resized."""
        return not (self.resize or self.roi_decode or self.colour)


@dataclass
class GraphInput:
    """One iteration's input, all lists and first axes of length n <= batch.

    encoded: n uint8 arrays (JPEG or mp4 bytes), or (F, H, W, 3) frames; boxes (n, C, 4); flips
    (n,); colours (n, 4); picks: for the video head the frame numbers (int32) of each sample, each
    only once, since a repeated one would restart the decoder; gathers: where they then go (int32).
    """

    encoded: list[np.ndarray]
    boxes: np.ndarray
    flips: np.ndarray
    colours: np.ndarray
    picks: list[np.ndarray] | None = None
    gathers: list[np.ndarray] | None = None


def dali() -> Any:
    """The module nvidia.dali, or the remedy where it is not installed; its stubs lack names."""
    try:
        for name in ("fn", "types"):
            importlib.import_module(f"nvidia.dali.{name}")
        return importlib.import_module("nvidia.dali")
    except ImportError as error:
        raise LoaderError(
            f"NVIDIA DALI cannot be imported ({error}): pip install -e '.[cuda13]', or "
            "'.[cuda12]' for drivers older than 580"
        ) from None


def build_graph(spec: GraphSpec) -> Any:
    """The built DALI pipeline of `spec`, fed by `feed`."""

    @dali().pipeline_def(
        batch_size=spec.batch,
        num_threads=spec.threads,
        device_id=spec.device_id,
        exec_dynamic=True,  # survives a batch that raises
        exec_pipelined=False,  # or the first run would want two batches at once
        prefetch_queue_depth=2,
    )
    def graph() -> Any:
        windows = [_window(crop) for crop in range(spec.crops)]
        frames, given = _decoded(spec, windows[0]), _augmentation(spec)
        return results(frames, windows, given, spec)

    pipeline = graph()
    pipeline.build()
    return pipeline


def _window(crop: int) -> tuple[Any, Any]:
    fn, types = dali().fn, dali().types
    anchor = fn.external_source(name=f"anchor{crop}", dtype=types.INT64, ndim=1)
    shape = fn.external_source(name=f"shape{crop}", dtype=types.INT64, ndim=1)
    return anchor, shape


def _decoded(spec: GraphSpec, window: tuple[Any, Any]) -> Any:
    fn, types = dali().fn, dali().types
    if spec.head == "frames":
        frames = fn.external_source(name="encoded", dtype=types.UINT8, ndim=4, layout="FHWC")
        return frames if spec.device_id is None else frames.gpu()
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    if spec.head == "video":
        return decoded_video(encoded, spec)
    return decoded_image(encoded, window, spec)


def decoded_video(encoded: Any, spec: GraphSpec) -> Any:
    """Frames (F, H, W, 3) of an mp4: those of the input `picks`, in the order of `gather`."""
    fn, types = dali().fn, dali().types
    picks = fn.external_source(name="picks", dtype=types.INT32, ndim=1)
    device = "mixed" if spec.mixed else "cpu"
    frames = fn.decoders.video(encoded, frames=picks, device=device, pad_mode="none")
    gather = fn.external_source(name="gather", dtype=types.INT32, ndim=1)
    return _on_device(fn.sequence_rearrange(frames, new_order=gather), spec)


def decoded_image(encoded: Any, window: tuple[Any, Any], spec: GraphSpec) -> Any:
    """A JPEG (H, W, 3), or with `roi_decode` its window alone."""
    decoders, settings = dali().fn.decoders, {"output_type": dali().types.RGB} | AS_STORED
    device = "mixed" if spec.mixed else "cpu"
    if spec.roi_decode:
        frames = decoders.image_slice(encoded, *window, axes=[0, 1], device=device, **settings)
    else:
        frames = decoders.image(encoded, device=device, **settings)
    return _on_device(frames, spec)


def _on_device(frames: Any, spec: GraphSpec) -> Any:
    return frames.gpu() if spec.device_id is not None and not spec.mixed else frames


def _augmentation(spec: GraphSpec) -> dict[str, Any]:
    fn, types = dali().fn, dali().types
    given = {}
    if spec.flip:
        given["flip"] = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
    if spec.colour:
        for name in COLOURS:
            given[name] = fn.external_source(name=name, dtype=types.FLOAT, ndim=0)
    return given


def results(
    frames: Any, windows: list[tuple[Any, Any]], given: dict[str, Any], spec: GraphSpec
) -> tuple[Any, ...]:
    """The crops of decoded frames; where they are not resized here, with what `cpu_resize.py`
    needs: the flips, and for whole frames the windows instead of the crops."""
    flips = [given["flip"]] if spec.flip and not spec.resize else []
    if spec.cut_later:
        return frames, *(part for window in windows for part in window), *flips
    return *(_transformed(frames, window, given, spec) for window in windows), *flips


def _transformed(
    frames: Any, window: tuple[Any, Any], given: dict[str, Any], spec: GraphSpec
) -> Any:
    """Cut, mirror, colour and resize decoded frames; `given` holds the flip and the factors."""
    fn, types = dali().fn, dali().types
    if not spec.roi_decode:
        axes = [0, 1] if spec.head == "image" else [1, 2]
        frames = fn.slice(frames, *window, axes=axes)
    if spec.flip and spec.resize:
        frames = fn.flip(frames, horizontal=given["flip"])
    if spec.colour:
        frames = fn.color_twist(frames, **{name: given[name] for name in COLOURS})
    if spec.resize:
        # The reference interpolates bilinearly without a low-pass filter; so do we.
        size, linear = [spec.size, spec.size], types.INTERP_LINEAR
        frames = fn.resize(frames, size=size, interp_type=linear, antialias=False)
    return frames


def feed(pipeline: Any, spec: GraphSpec, given: GraphInput) -> None:
    """Hand one iteration's input to the graph; it runs at the next `schedule_run`."""
    frames = spec.head == "frames"
    pipeline.feed_input("encoded", given.encoded if frames else tensors(given.encoded))
    if given.picks is not None:
        pipeline.feed_input("picks", given.picks)
    if given.gathers is not None:
        pipeline.feed_input("gather", given.gathers)
    boxes = given.boxes.astype(np.int64)
    for crop in range(spec.crops):
        low, high = boxes[:, crop, :2], boxes[:, crop, 2:]
        pipeline.feed_input(f"anchor{crop}", np.ascontiguousarray(low))
        pipeline.feed_input(f"shape{crop}", high - low)
    if spec.flip:
        pipeline.feed_input("flip", given.flips.astype(np.int32))
    if spec.colour:
        for column, name in enumerate(COLOURS):
            pipeline.feed_input(name, np.ascontiguousarray(given.colours[:, column]))


def tensors(encoded: list[np.ndarray]) -> Any:
    """Encoded samples as DALI wants them; its own conversion of a list takes twice as long, with
    the interpreter held."""
    module = importlib.import_module("nvidia.dali.tensors")
    return module.TensorListCPU([module.TensorCPU(one) for one in encoded], contiguous=False)
