"""Decoding rates: JPEGs by batch size, hardware load and resize, CPU threads, NVDEC by codec."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from benches.timing import cores, cpu_seconds

from gpu.clips import shards
from gpu.frames import jpegs
from gpu.job import Job
from pipelines import AugmentConfig, LoaderConfig, Rank, SamplingConfig, TrainLoader
from pipelines.decode.graph import JPEG_SETTINGS, dali, tensors

FRAMES = 16  # of a video: U x T
SIDES = (256, 340)
LEAST_SECONDS = 4.0  # for one more row


@dataclass(frozen=True)
class Graph:
    """Decode JPEGs of 340 x 256, cut to 3/4 of each side, and resize, as the loader's graph does.

    Attributes:
        videos: of 16 frames, in a batch.
        threads: of DALI.
        load: share of the images for the hardware decoder.
        minibatch: frames that the resize takes at once.
        resize: False ends the graph after the decoder.
        roi: decode only the region.
    """

    videos: int = 32
    threads: int = 4
    load: float = 0.9
    minibatch: int = 32
    resize: bool = True
    roi: bool = False

    @property
    def name(self) -> str:
        steps = "decode, cut, resize" if self.resize else "decode"
        roi = ", roi" if self.roi else ""
        return (
            f"nvJPEG {steps}{roi}: {self.videos} videos, {self.threads} threads, "
            f"hw_decoder_load {self.load:g}, minibatch_size {self.minibatch}"
        )


GRAPHS = (
    Graph(), Graph(resize=False), Graph(videos=16), Graph(videos=64), Graph(load=0.0),
    Graph(load=0.65), Graph(load=1.0), Graph(minibatch=128), Graph(minibatch=512),
    Graph(threads=8), Graph(roi=True), Graph(roi=True, load=0.0),
)  # fmt: skip


def run(job: Job) -> None:
    pending: list[tuple[str, Callable[..., None], tuple[Any, ...]]] = [
        (graph.name, _graph, (job, graph)) for graph in GRAPHS[: 1 if job.sizes.toy else None]
    ]
    pending += [_loader_row(job, "mjpeg", threads, decode_on="cpu") for threads in cpu_threads(job)]
    for codec in ("mjpeg",) if job.sizes.toy else ("mjpeg", "h264", "hevc", "vp9"):
        for threads in (4, 8, 16) if job.gpu else (1,):
            if codec == "mjpeg" or job.gpu:
                decode = "image" if codec == "mjpeg" else "video"
                pending.append(_loader_row(job, codec, threads, decode=decode))
    for what, function, given in interleaved(pending):
        if job.remaining < LEAST_SECONDS and not job.sizes.toy:
            job.report.add(what=what, not_run="no time left")
        else:
            job.attempt(what, function, *given, optional=True)
    job.needs_gpu("NVDEC by codec and threads")


def interleaved(rows: list[Any]) -> list[Any]:
    """The even rows, then the odd ones: a time limit then cuts no kind of row altogether."""
    return rows[::2] + rows[1::2]


def cpu_threads(job: Job) -> list[int]:
    """Numbers of decoding threads to try on the CPU: all cores, half of them, ..."""
    counts = [cores() >> halved for halved in range(4)]
    return [count for count in counts if count >= 1][: 1 if job.sizes.toy else None]


def _graph(job: Job, graph: Graph) -> None:
    count = min(graph.videos, 2) * FRAMES if job.sizes.toy else graph.videos * FRAMES
    pipeline, feed = build(graph, count, job)
    feed()
    pipeline.schedule_run()
    rounds, videos, start, cpu = 0, 0, 0.0, 0.0
    while rounds < 3 or time.perf_counter() < start + job.sizes.seconds:
        feed()
        pipeline.schedule_run()  # while the batch before is waited for
        pipeline.outputs()
        rounds += 1
        if rounds == 2:  # the first batches allocate memory
            start, cpu, videos = time.perf_counter(), cpu_seconds(), 0
        else:
            videos += count // FRAMES
    seconds = time.perf_counter() - start
    job.report.add(
        what=graph.name if job.gpu else f"on the CPU: {graph.name}",
        videos_per_second=videos / seconds, frames_per_second=videos * FRAMES / seconds,
        cpu_ms_per_video=1e3 * (cpu_seconds() - cpu) / videos,
    )  # fmt: skip
    pipeline.outputs()


def build(graph: Graph, count: int, job: Job) -> tuple[Any, Callable[[], None]]:
    """A DALI pipeline for batches of `count` JPEGs, and the function that feeds one to it."""
    fn, types, module = dali().fn, dali().types, dali()
    low, shape = (np.array([side // 8 * k for side in SIDES], np.int64) for k in (1, 6))

    device_id = (job.device.index or 0) if job.gpu else None

    @module.pipeline_def(
        batch_size=count, num_threads=graph.threads, device_id=device_id,
        exec_dynamic=True, exec_pipelined=False, prefetch_queue_depth=2,
    )  # fmt: skip
    def pipe() -> Any:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        settings = {"output_type": types.RGB, **JPEG_SETTINGS}
        settings |= {"device": "mixed", "hw_decoder_load": graph.load} if job.gpu else {}
        if graph.roi:
            frames = fn.decoders.image_slice(encoded, low, shape, axes=[0, 1], **settings)
        else:
            frames = fn.decoders.image(encoded, **settings)
        if not graph.resize:
            return frames
        if not graph.roi:
            frames = fn.slice(frames, low, shape, axes=[0, 1])
        return fn.resize(
            frames, size=[224, 224], interp_type=types.INTERP_LINEAR, antialias=False,
            minibatch_size=graph.minibatch,
        )  # fmt: skip

    pipeline = pipe()
    pipeline.build()
    images = jpegs([SIDES] * 8)
    batch = [images[n % len(images)] for n in range(count)]
    return pipeline, lambda: pipeline.feed_input("encoded", tensors(batch))


def _loader_row(
    job: Job, codec: str, threads: int, **settings: Any
) -> tuple[str, Callable[..., None], tuple[Any, ...]]:
    where = "CPU" if settings.get("decode_on") == "cpu" or not job.gpu else "GPU"
    what = f"loader, {codec} decoded on the {where}, {threads} threads"
    settings = {"threads": threads, **settings} if job.gpu else {"threads": threads}
    return what, _loader, (job, what, codec, settings)


def _loader(job: Job, what: str, codec: str, settings: dict[str, Any]) -> None:
    """The rate of the whole loader on short videos that are in the page cache."""
    split, batch = shards(job, codec), 2 if job.sizes.toy else 32
    split = split.part(np.arange(batch * 8) % len(split))
    loader = TrainLoader(
        split, SamplingConfig(), AugmentConfig(size=job.sizes.size),
        LoaderConfig(**settings), seed=0, batch_size=batch, rank=Rank(device=str(job.device)),
    )  # fmt: skip
    try:
        stream = endless(loader)
        for _ in range(4):  # what is decoded before the clock starts
            next(stream)
        job.synchronize()
        videos, start, cpu = 0, time.perf_counter(), cpu_seconds()
        while not videos or time.perf_counter() < start + job.sizes.seconds:
            videos += len(next(stream).ids)
        job.synchronize()
        seconds = time.perf_counter() - start
        job.report.add(what=what, videos_per_second=videos / seconds,
                       cpu_ms_per_video=1e3 * (cpu_seconds() - cpu) / videos)  # fmt: skip
    finally:
        loader.close()


def endless(loader: TrainLoader) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1
