"""Named stretches of time, for the traces of torch.profiler and of Nsight."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def named_range(name: str) -> Iterator[None]:
    """Mark what runs inside in a trace; it costs some microseconds where nobody traces."""
    nvtx = torch.version.cuda is not None  # a CPU build of torch has no NVTX
    with torch.profiler.record_function(name):
        if nvtx:
            torch.cuda.nvtx.range_push(name)
        try:
            yield
        finally:
            if nvtx:
                torch.cuda.nvtx.range_pop()
