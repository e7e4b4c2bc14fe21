"""The decode graph of `--loader.reader webdataset`: decodes, crops and resizes.

Its input is what the reader graph (`reader_graph.py`) extracts from the stored files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.dali_reader.reader_graph import DRAWS, StreamSpec
from pipelines.dali_reader.sampling import dali_math
from pipelines.decode.decoder import Decoder
from pipelines.decode.graph import (
    AS_STORED,
    COLOURS,
    crop_frames,
    dali,
    decode_jpeg,
    decode_mp4,
    tensors,
)
from pipelines.read.gops import Container

Y, X, SCALE, ASPECT, SWAP, FLIP = range(DRAWS)  # what each draw is for


def build_decoder(spec: StreamSpec) -> Any:
    """The built decode graph."""
    fn, types = dali().fn, dali().types
    graph_spec = spec.graph

    @dali().pipeline_def(
        batch_size=graph_spec.batch,
        num_threads=graph_spec.threads,
        device_id=graph_spec.device_id,
        exec_dynamic=True,
        exec_pipelined=False,
        prefetch_queue_depth=2,
    )
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        frames: Any = None
        if graph_spec.input == "jpeg":
            size = fn.peek_image_shape(encoded, **AS_STORED)[0:2]
        else:
            frames = decode_mp4(encoded, graph_spec)
            size = frames.shape()[1:3]
        height, width = (fn.cast(size[axis], dtype=types.FLOAT) for axis in (0, 1))
        augmentation: dict[str, Any] = {}
        if spec.augment is None:
            windows = _eval_windows(height, width, spec)
        else:
            draws = fn.external_source(name="draws", dtype=types.FLOAT, ndim=1)
            windows = [_train_window(height, width, draws, spec)]
            augmentation["flip"] = fn.cast(draws[FLIP] < spec.augment.flip, dtype=types.INT32)
        if frames is None:
            frames = decode_jpeg(encoded, windows[0], graph_spec)
        if graph_spec.colour:
            factors = fn.external_source(name="colours", dtype=types.FLOAT, ndim=1)
            augmentation |= {name: factors[column] for column, name in enumerate(COLOURS)}
        return crop_frames(frames, windows, augmentation, graph_spec)

    pipeline = graph()
    pipeline.build()
    return pipeline


def _window(y: Any, x: Any, h: Any, w: Any) -> tuple[Any, Any]:
    fn, types = dali().fn, dali().types
    pairs = (fn.stack(y, x), fn.stack(h, w))
    return tuple(fn.cast(pair, dtype=types.INT64) for pair in pairs)


def _train_window(height: Any, width: Any, draws: Any, spec: StreamSpec) -> tuple[Any, Any]:
    """Anchor and shape of the crop of a training video.

    RandomResizedCrop takes its first draw, clamped to the picture.
    """
    dm, augment = dali_math(), spec.augment
    assert augment is not None
    if augment.kind == "random_resized_crop":
        low, high = augment.scale
        area = (low + draws[SCALE] * (high - low)) * height * width
        low, high = augment.ratio
        aspect = low + draws[ASPECT] * (high - low)
        swap = dali().fn.cast(draws[SWAP] < 0.5, dtype=dali().types.FLOAT)
        long, wide = dm.sqrt(area / aspect), dm.sqrt(area * aspect)
        h = dm.clamp(dm.floor(long * (1 - swap) + wide * swap + 0.5), 1.0, height)
        w = dm.clamp(dm.floor(wide * (1 - swap) + long * swap + 0.5), 1.0, width)
        return _random_window(height, width, h, w, draws)
    low, high = augment.short_sides
    short = low
    if augment.kind == "scale_jitter":
        short = low + dm.floor(draws[SCALE] * (high - low + 1))
    side = dm.floor(dm.min(height, width) * augment.size / (short * 1.0) + 0.5)
    if augment.kind == "centre":
        return _window(dm.floor((height - side) / 2.0), dm.floor((width - side) / 2.0), side, side)
    return _random_window(height, width, side, side, draws)


def _random_window(height: Any, width: Any, h: Any, w: Any, draws: Any) -> tuple[Any, Any]:
    floor = dali_math().floor
    return _window(floor(draws[Y] * (height - h + 1)), floor(draws[X] * (width - w + 1)), h, w)


def _eval_windows(height: Any, width: Any, spec: StreamSpec) -> list[tuple[Any, Any]]:
    """`crops.eval_boxes` in DALI's arithmetic."""
    dm = dali_math()
    ratio = min(spec.graph.size / spec.resize_short, 1.0)
    side = dm.max(dm.floor(dm.min(height, width) * ratio + 0.5), 1.0)
    # Along the short side all crops are centred.
    tall = dali().fn.cast(height > width, dtype=dali().types.FLOAT)
    windows = []
    for position in [0.5] if spec.graph.crops == 1 else [0.0, 0.5, 1.0]:
        y = dm.floor((height - side) * (position * tall + 0.5 * (1 - tall)))
        x = dm.floor((width - side) * (0.5 * tall + position * (1 - tall)))
        windows.append(_window(y, x, side, side))
    return windows


class StreamBatch:
    """Input of the decode graph: outputs of the reader graph for one batch.

    rows: the sample of the outputs that each slot takes; replaced: by sample, the outputs that take
    the place of a broken video's.
    """

    def __init__(
        self,
        outputs: dict[str, Any],
        rows: list[int],
        replaced: dict[int, dict[str, np.ndarray]] | None = None,
    ) -> None:
        self.outputs, self.rows = outputs, rows
        self.replaced = {} if replaced is None else replaced

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, slots: Sequence[int]) -> StreamBatch:
        """The videos in these slots."""
        return StreamBatch(self.outputs, [self.rows[slot] for slot in slots], self.replaced)

    def replace(self, slot: int, payload: Container | list[np.ndarray]) -> None:
        """Give a slot another video, a Container or JPEGs; its crop and flip stay."""
        if isinstance(payload, Container):
            new = {"encoded": payload.data, "picks": payload.picks, "gather": payload.gather}
        else:
            sizes = np.array([len(frame) for frame in payload], np.int32)
            new = {"encoded": np.concatenate(payload), "sizes": sizes}
        self.replaced[self.rows[slot]] = new

    def column(self, name: str) -> list[np.ndarray]:
        """One output of the reader graph: an array for each slot."""
        return [
            self.replaced.get(row, {}).get(name, np.asarray(self.outputs[name][row]))
            for row in self.rows
        ]


class StreamDecoder(Decoder):
    """The decode graph, behind the interface of `Decoder`."""

    def __init__(
        self, stream: StreamSpec, frames: int, *, pinned: bool = False, prefetch: int = 2
    ) -> None:
        self.stream = stream
        super().__init__(stream.graph, frames, pinned=pinned, prefetch=prefetch)

    def _build(self) -> Any:
        return build_decoder(self.stream)

    def submit(self, batch: Any) -> None:
        """Start decoding a StreamBatch."""
        jpegs = self.spec.input == "jpeg"
        names = [] if jpegs else ["picks", "gather"]
        names += ["draws"] if self.stream.draws else []
        names += ["colours"] if self.spec.colour else []
        encoded = batch.column("encoded")
        if jpegs:
            pieces = map(split_bytes, encoded, batch.column("sizes"))
            encoded = [frame for video in pieces for frame in video]
        self.pipeline.feed_input("encoded", tensors(encoded))
        for name in names:
            column = batch.column(name)
            if jpegs:  # each frame is a sample of the graph; a video has one draw for all
                column = [value for value in column for _ in range(self.frames)]
            self.pipeline.feed_input(name, column)
        self.pipeline.schedule_run()


def split_bytes(data: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Split data (1-D) into consecutive pieces of these sizes."""
    return np.split(data, np.cumsum(sizes)[:-1])
