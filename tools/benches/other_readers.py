"""How other libraries read the frames of a video: one function for each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.timing import cores
from pipelines.decode.cpu_resize import resize
from pipelines.decode.graph import dali
from pipelines.plan.planner import BatchPlan

SIZE = 224


def pyav_linear(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Decode from the first frame to the last one needed."""
    import av

    needed, frames = set(numbers.tolist()), {}
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in needed:
                frames[number] = frame.to_ndarray(format="rgb24")
            if number >= numbers.max():
                break
    last = frames[max(frames)]
    return np.stack([frames.get(number, last) for number in numbers.tolist()])


def pyav_seek(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Seek to the keyframe before each snippet."""
    import av

    frames: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        ticks = float(1 / (stream.average_rate * stream.time_base))
        for snippet in numbers.reshape(4, -1):
            needed = set(snippet.tolist())
            container.seek(int(snippet[0] * ticks), stream=stream)
            for frame in container.decode(stream):
                number = round(frame.pts / ticks)
                if number in needed:
                    frames[number] = frame.to_ndarray(format="rgb24")
                if number >= snippet[-1]:
                    break
    decoded = np.array(sorted(frames))
    nearest = [int(decoded[np.abs(decoded - number).argmin()]) for number in numbers.tolist()]
    return np.stack([frames[number] for number in nearest])


def decord(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Read a batch of frames with decord on one thread."""
    import decord as library

    reader = library.VideoReader(str(path), num_threads=1)
    return reader.get_batch(np.minimum(numbers, len(reader) - 1)).asnumpy()


def torchcodec(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Read frames with torchcodec on one thread, in its approximate seek mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        str(path), dimension_order="NHWC", seek_mode="approximate", num_ffmpeg_threads=1
    )
    count = decoder.metadata.num_frames or 300
    return decoder.get_frames_at(np.minimum(numbers, count - 1).tolist()).data.numpy()


def pillow(paths: list[Path], numbers: np.ndarray) -> np.ndarray:
    """Read one JPEG file per frame, the form in which the released trainer keeps its data."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(paths[number])) for number in numbers.tolist()])


READERS: dict[str, tuple[str, Callable[[Any, np.ndarray], np.ndarray]]] = {
    "PyAV linear": ("av", pyav_linear),
    "PyAV seek": ("av", pyav_seek),
    "decord": ("decord", decord),
    "torchcodec": ("torchcodec", torchcodec),
    "PIL": ("PIL", pillow),
}


class VideoDataset(torch.utils.data.Dataset):
    """The frames and boxes of a plan as clips, uint8 (U x T, 224, 224, 3)."""

    def __init__(self, reader: str, items: list[Any], plan: BatchPlan) -> None:
        self.reader, self.items, self.plan = reader, items, plan

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor:
        torch.set_num_threads(1)
        frames = READERS[self.reader][1](self.items[index], self.plan.frames[index])
        y0, x0, y1, x1 = self.plan.boxes[index, 0].astype(int)
        clip = torch.empty((len(frames), SIZE, SIZE, 3), dtype=torch.uint8)
        cut = torch.from_numpy(np.ascontiguousarray(frames[:, y0:y1, x0:x1]))
        resize(cut.flip(2) if self.plan.flips[index] else cut, clip)
        return clip


def dali_files(
    folders: list[list[Path]], plan: BatchPlan, args: argparse.Namespace
) -> Callable[[], None]:
    """DALI's file reader on JPEG files: the frames of a plan, cut to the plan's boxes.

    Returns a function that reads all of them once.
    """
    fn, types, module = dali().fn, dali().types, dali()
    frames, videos = plan.frames.shape[1], args.batch[0]
    files = [
        str(folders[video][number])
        for video in range(len(folders))
        for number in plan.frames[video].tolist()
    ]
    on_gpu, count = args.device != "cpu", videos * frames
    boxes = np.repeat(plan.boxes[:, 0].astype(np.int64), frames, axis=0)

    def window(batch: int) -> tuple[np.ndarray, np.ndarray]:
        box = boxes[
            (batch * count + np.arange(count)) % len(files)
        ]  # as the reader does, start again at the end
        return np.ascontiguousarray(box[:, :2]), box[:, 2:] - box[:, :2]

    @module.pipeline_def(
        batch_size=count,
        num_threads=args.threads[0] or cores(),
        device_id=0 if on_gpu else None,
    )
    def graph() -> Any:
        encoded, _ = fn.readers.file(files=files, name="reader")
        anchor, shape = fn.external_source(window, num_outputs=2, dtype=types.INT64)
        images = fn.decoders.image_slice(
            encoded, anchor, shape, axes=[0, 1], device="mixed" if on_gpu else "cpu",
            output_type=types.RGB,
        )  # fmt: skip
        return fn.resize(images, size=[SIZE, SIZE], antialias=False)

    pipeline = graph()
    pipeline.build()

    def call() -> None:
        for _ in range(-(-len(files) // count)):
            clips = torch.from_dlpack(pipeline.run()[0].as_tensor())
            assert clips.shape[-2] == SIZE

    return call
