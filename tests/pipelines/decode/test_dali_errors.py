"""DALI's error texts, raised in its graph: a video is replaced, or the job ends with one line."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import LoaderError
from pipelines.decode import decoder as decoder_module
from pipelines.decode.dali_errors import DecodeError, build_error, classify
from shards import Split
from tests.pipelines.loaders import train

VIDEO_FRAMES = 16  # of a video in a batch: 4 snippets of 4 frames
BANNER = """Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.video`,
which was used in the pipeline definition with the following traceback:

  File "cuda_out_of_memory.py", line 1, in graph

encountered:

{}
Stacktrace (3 entries):
[frame 0]: /usr/lib/libcuda.so(+0x1) can't allocate
Current pipeline object is no longer valid."""

MEMORY = [
    "Can't allocate 268435456 bytes on device 0.",
    "Can't allocate 4096 bytes on host.",
    "CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory",
    "CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY (2):\nout of memory",
    "CUDA allocation failed",
    "Error when processing sample #3:\nstd::bad_alloc",
    "nvImageCodec failure: device allocator failed",
]
UNSUPPORTED = [
    'Assert on "caps.bIsSupported" failed: Codec configuration not supported on this GPU. Codec: '
    "AV1, chroma format: 420, bit depth: 8",
    "AV1 is not supported by NVDEC on this platform.",
]
DRIVER = [
    "dlopen libnvcuvid.so failed!. Please install NVIDIA GPU driver",
    "Failed to load libcuda.so. Check your library paths and if NVIDIA driver is installed",
    "CUDA runtime API error cudaErrorInsufficientDriver (35):\n"
    "CUDA driver version is insufficient for CUDA runtime version",
]
STICKY = [
    "CUDA runtime API error cudaErrorIllegalAddress (700):\nan illegal memory access was "
    "encountered",
    "CUDA driver API error CUDA_ERROR_LAUNCH_FAILED (719):\nunspecified launch failure",
    "CUDA driver API error CUDA_ERROR_ECC_UNCORRECTABLE (214):\nuncorrectable ECC error "
    "encountered",
    "CUDA runtime API error cudaErrorDevicesUnavailable (46):\nCUDA-capable device(s) is/are busy",
    "CUDA Runtime failure: '#719'",
]
MACHINE = [
    *((text, "out of memory.*smaller batch") for text in MEMORY),
    ("Can't allocate 4096 bytes on host.", "out of memory.* MB"),
    ("Could not open file /set/a.tar: Too many open files", "too many open files.*RLIMIT_NOFILE"),
    (
        "std::system_error: Resource temporarily unavailable",
        "no more threads.*RLIMIT_NPROC|no more",
    ),
    *((text, r"this GPU cannot decode .*AV1.*\(take loader.decode_on cpu") for text in UNSUPPORTED),
    *((text, r"driver .*\(update the driver") for text in DRIVER),
    *((text, r"GPU failed .*\(look at nvidia-smi and dmesg") for text in STICKY),
]
VIDEO = [
    "CUDA driver API error CUDA_ERROR_INVALID_VALUE (1):\ninvalid argument",
    "CUDA driver API error CUDA_ERROR_NOT_SUPPORTED (801):\noperation not supported",
    "CUDA driver API error CUDA_ERROR_INVALID_IMAGE (200):\ndevice kernel image is invalid",
    "CUDA driver API error CUDA_ERROR_UNKNOWN (999):\nunknown error",
    "Failed to decode sample #3",
    "Assert on \"ret >= 0\" failed: Failed to decode the 'memory' video",
]


class FailingGraph:
    """A DALI pipeline whose run raises `text` where `fails`, given its JPEGs, says so."""

    def __init__(self, pipeline: Any, text: str, fails: Callable[[list[bytes]], bool]) -> None:
        self.pipeline, self.text, self.fails = pipeline, text, fails
        self.failing: deque[bool] = deque()
        self.runs = 0

    def feed_input(self, name: str, values: Any) -> None:
        if name == "encoded":
            self.failing.append(self.fails([np.asarray(value).tobytes() for value in values]))
        self.pipeline.feed_input(name, values)

    def schedule_run(self) -> None:
        self.pipeline.schedule_run()

    def outputs(self) -> Any:
        self.runs += 1
        outputs = self.pipeline.outputs()
        if self.failing.popleft():
            raise RuntimeError(BANNER.format(self.text))
        return outputs


def always(frames: list[bytes]) -> bool:
    return True


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the graphs that are built from now on raise; returns the list of them."""
    build = decoder_module.build_graph

    def arm(text: str, fails: Callable[[list[bytes]], bool] = always) -> list[FailingGraph]:
        graphs: list[FailingGraph] = []

        def build_failing(spec: Any) -> FailingGraph:
            graphs.append(FailingGraph(build(spec), text, fails))
            return graphs[-1]

        monkeypatch.setattr(decoder_module, "build_graph", build_failing)
        return graphs

    return arm


def frames_of(split: Split, sample: int) -> set[bytes]:
    """All stored JPEGs of a video."""
    row = split.samples[sample]
    entries = split.frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]
    with open(split.tar_path(sample), "rb") as file:
        frames = set()
        for entry in entries:
            file.seek(int(row["offset"]) + int(entry["offset"]))
            frames.add(file.read(int(entry["size"])))
    return frames


@pytest.mark.parametrize(("text", "line"), MACHINE)
def test_a_fault_of_the_machine_ends_the_job_at_once(split, fail, tmp_path: Path, text, line):
    graphs, listed = fail(text), tmp_path / "quarantine.jsonl"
    loader = train(split, quarantine=listed)
    with pytest.raises(LoaderError, match=line):
        list(loader.epoch(0))
    loader.close()
    assert not listed.exists()
    assert graphs[0].runs <= 3  # no bisection: the batch and those behind it


@pytest.mark.parametrize("text", VIDEO)
def test_a_bad_stream_is_replaced_and_the_job_goes_on(split, fail, tmp_path: Path, text):
    intact = train(split)
    bad = int(intact.order(0)[0])
    intact.close()
    frames, listed = frames_of(split, bad), tmp_path / "quarantine.jsonl"
    graphs = fail(text, lambda fed: not frames.isdisjoint(fed))
    loader = train(split, quarantine=listed)
    batches = list(loader.epoch(0))
    loader.close()
    assert [video for batch in batches for video, _, _ in batch.replaced] == [bad]
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [entry["id"] for entry in entries] == [bad]
    assert (
        text.splitlines()[0].removeprefix('Assert on "ret >= 0" failed: ') in entries[0]["reason"]
    )
    assert graphs[0].runs <= len(batches) + 8


def test_a_batch_that_fails_only_as_a_whole_ends_the_job_after_one_search(split, fail):
    """So nvJPEG shows that its memory is short."""
    graphs = fail("Failed to decode sample #3", lambda frames: len(frames) > VIDEO_FRAMES)
    loader = train(split)
    with pytest.raises(LoaderError, match="memory may be short: Failed to decode sample #3"):
        list(loader.epoch(0))
    loader.close()
    assert graphs[0].runs <= 16


def test_a_cuda_error_for_every_video_is_the_machines(split, fail, tmp_path: Path):
    listed = tmp_path / "quarantine.jsonl"
    fail("CUDA driver API error CUDA_ERROR_UNKNOWN (999):\nunknown error")
    loader = train(split, quarantine=listed)
    with pytest.raises(LoaderError, match="a CUDA error for each of the 4 videos"):
        list(loader.epoch(0))
    loader.close()
    assert not listed.exists()


def test_only_the_cause_is_classified():
    error = classify(BANNER.format("Unrecognised picture"))
    assert isinstance(error, DecodeError)
    assert str(error) == "Unrecognised picture"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CUDA driver version is insufficient", "the driver of the GPU"),
        ("Unknown attribute 'x'", "DALI cannot build its decoding graph: Unknown attribute 'x'"),
    ],
)
def test_a_graph_that_cannot_be_built_is_no_fault_of_a_video(text: str, message: str) -> None:
    error = build_error(RuntimeError(text))
    assert isinstance(error, LoaderError)
    assert str(error).startswith(message)
