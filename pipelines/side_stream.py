"""Copies batches to a GPU on a stream of their own, beside the GPU's work on earlier batches."""

from __future__ import annotations

from typing import Any

import torch


class SideStream:
    """A CUDA stream for copies from page-locked memory.

    On the consumer's stream a copy would wait for the step that is queued there, and the next step
    for the copy. Here it runs during that step, and only the work that is launched afterwards waits
    for it.

    device: the GPU; cuda: the functions of `torch.cuda`.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self.device, self._cuda = device, cuda
        self._stream = cuda.Stream(device)

    def copy(self, clips: torch.Tensor) -> torch.Tensor:
        """The clips on the GPU, for work on the stream that is current now."""
        # Memory of the side stream: nothing on the consumer's stream can still be using it.
        with self._cuda.stream(self._stream):
            moved = clips.to(self.device, non_blocking=True)
        consumer = self._cuda.current_stream(self.device)
        consumer.wait_stream(self._stream)
        # Without this, the memory could be given to the next copy once Python drops the tensor,
        # while kernels that read it are still queued.
        moved.record_stream(consumer)
        return moved
