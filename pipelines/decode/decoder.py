"""Runs the graph on batches of videos, and finds those that DALI refuses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dsanet.variables import read_number
from pipelines.decode.cpu_resize import CpuResizer
from pipelines.decode.dali_errors import DecodeError, build_error, check_machine, classify
from pipelines.decode.fork_guard import guard_against_forks
from pipelines.decode.graph import GraphInput, GraphSpec, build_graph, feed


@dataclass
class EncodedBatch:
    """Input of a decoder: V videos of F frames and C crops.

    payload: per video what `GraphSpec.input` names: a list of F JPEGs, a Container with an mp4, or
    pixels (F, H, W, 3); boxes (V, C, 4); flips (V,); colours (V, 4).
    """

    payload: list[Any]
    boxes: np.ndarray
    flips: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.payload)

    def part(self, rows: Sequence[int]) -> EncodedBatch:
        """The videos at `rows`."""
        at = list(rows)
        return EncodedBatch(
            payload=[self.payload[row] for row in at],
            boxes=self.boxes[at],
            flips=self.flips[at],
            colours=self.colours[at],
        )


class Decoder:
    """Decodes, crops and resizes batches of videos: the DALI graph and the torch half of it.

    `submit` starts a batch, `collect` waits for the oldest one, and `tensor` makes uint8 clips
    (V, C, F, size, size, 3) of its outputs, on the CPU or, for a graph with a device, on the GPU.
    frames: F; prefetch: batches that the caller keeps ready; pinned: clips in page-locked memory,
    for a copy to a GPU.
    """

    def __init__(
        self, spec: GraphSpec, frames: int, *, pinned: bool = False, prefetch: int = 2
    ) -> None:
        self.spec, self.frames = spec, frames
        try:
            self.pipeline = guard_against_forks(self._build())
        except RuntimeError as error:
            raise build_error(error) from None
        self._cpu_resizer = None
        if not spec.resize:
            self._cpu_resizer = CpuResizer(spec, frames, pinned=pinned, prefetch=prefetch)
        self.resizes_here = not spec.resize

    def _build(self) -> Any:
        return build_graph(self.spec)

    def submit(self, batch: EncodedBatch) -> None:
        """Start decoding; at most two batches may be under way."""
        feed(self.pipeline, self.spec, self._input(batch))
        self.pipeline.schedule_run()

    def collect(self) -> tuple[Any, ...]:
        """Wait for the oldest batch.

        Raises:
            DecodeError: when DALI cannot decode it.
            LoaderError: for a fault of the machine, such as too little memory.
        """
        try:
            return tuple(self.pipeline.outputs())
        except RuntimeError as error:
            raise classify(str(error)) from None

    def tensor(self, outputs: tuple[Any, ...]) -> torch.Tensor:
        """Outputs of `collect` as one tensor (V, C, F, size, size, 3); no copy where C = 1.

        Raises:
            DecodeError: where frames do not have the size for which their crops were planned.
            LoaderError: for a fault of the machine, such as too little memory.
        """
        if self._cpu_resizer is not None:
            return self._cpu_resizer.clips(outputs)
        size = self.spec.size
        crops = [torch.from_dlpack(output.as_tensor()) for output in outputs]
        shaped = [crop.view(-1, 1, self.frames, size, size, 3) for crop in crops]
        return shaped[0] if len(shaped) == 1 else torch.cat(shaped, dim=1)

    def bisect(self, batch: EncodedBatch) -> dict[int, str]:
        """Rows of a refused batch that cannot be decoded, with the reason of each.

        LoaderError for a fault of the machine.
        """
        faults: dict[int, str] = {}
        suspects = [list(range(len(batch)))]
        while suspects:
            rows = suspects.pop()
            try:
                self.submit(batch.part(rows))
                outputs = self.collect()
                if self.resizes_here:
                    self.tensor(outputs)
            except DecodeError as error:
                if len(rows) == 1:
                    faults[rows[0]] = str(error)
                else:
                    half = len(rows) // 2
                    suspects += [rows[half:], rows[:half]]
        check_machine(faults, len(batch))
        return faults

    def close(self) -> None:
        """Free the graph and its threads."""
        if self._cpu_resizer is not None:
            self._cpu_resizer.close()
        del self.pipeline

    def _input(self, batch: EncodedBatch) -> GraphInput:
        if self.spec.input == "mp4":
            return GraphInput(
                encoded=[container.data for container in batch.payload],
                boxes=batch.boxes,
                flips=batch.flips,
                colours=batch.colours,
                picks=[container.picks for container in batch.payload],
                gathers=[container.gather for container in batch.payload],
            )
        if self.spec.input == "pixels":
            return GraphInput(batch.payload, batch.boxes, batch.flips, batch.colours)
        return GraphInput(
            encoded=[frame for video in batch.payload for frame in video],
            boxes=np.repeat(batch.boxes, self.frames, axis=0),
            flips=np.repeat(batch.flips, self.frames),
            colours=np.repeat(batch.colours, self.frames, axis=0),
        )


def usable_cores() -> int:
    """Cores in this process's share of the machine.

    Raises:
        VariableError: when SLURM_CPUS_PER_TASK or LOCAL_WORLD_SIZE is not a number.
    """
    cores = len(os.sched_getaffinity(0))
    if "SLURM_CPUS_PER_TASK" in os.environ:  # a cluster that does not bind tasks shows all cores
        return min(cores, read_number("SLURM_CPUS_PER_TASK", cores, least=1))
    return max(1, cores // read_number("LOCAL_WORLD_SIZE", 1, least=1))
