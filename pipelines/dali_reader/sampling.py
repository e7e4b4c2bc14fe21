"""`plan/sampling.py` inside the DALI graph, for `--loader.reader webdataset`.

Evaluation computes in float64 in NumPy's order of operations, so that its frames are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.decode.graph import dali
from pipelines.plan.sampling import SamplingConfig


def train_picks(n: Any, sampling: SamplingConfig) -> Any:
    """Random frame numbers (U * T,) int32 of a video of n frames: `train_frames` in the graph."""
    x = dali().fn.random.uniform(range=[0.0, 1.0], shape=[sampling.segments, 1])
    return _segment_picks(n, x, sampling)


def eval_picks(n: Any, sampling: SamplingConfig, clips: int | None) -> Any:
    """Frame numbers (U * T,) int32 as `val_frames` has them, or (K * T,) as `test_frames`."""
    half = dali().types.Constant(np.float64(0.5))
    return _segment_picks(n, half, sampling) if clips is None else _clip_picks(n, sampling, clips)


def dali_math() -> Any:
    """Import nvidia.dali.math."""
    import nvidia.dali.math as module

    return module


def _segment_picks(n: Any, x: Any, sampling: SamplingConfig) -> Any:
    U, T, W = sampling.segments, sampling.frames, sampling.span
    u, t = _axis(np.arange(U + 1), True), _axis(np.arange(T), False)
    low = (n * u[:U]) // U
    length = (n * (u[:U] + 1)) // U - low
    start = low + _floor(x * (length - W + 1)) + _margin(sampling)
    spread = _floor(low + (t + x) * (_double(length) / float(T)))
    return _windows_or_spread(start + t * sampling.stride, spread, n, sampling, U * T)


def _clip_picks(n: Any, sampling: SamplingConfig, clips: int) -> Any:
    T, K, double = sampling.frames, float(clips), _double(n)
    k, t = _axis(np.arange(clips), True), _axis(np.arange(T), False)
    tick = (double - float(sampling.span) + 1.0) / K
    start = _floor(tick / 2.0 + tick * k) + _margin(sampling)
    segment = double / float(sampling.segments)
    spread = _floor((double - segment) * (k + 0.5) / K + (t + 0.5) * (segment / float(T)))
    return _windows_or_spread(start + t * sampling.stride, spread, n, sampling, clips * T)


def _windows_or_spread(
    windows: Any, spread: Any, n: Any, sampling: SamplingConfig, count: int
) -> Any:
    """Frames in windows if a segment can hold a window, else frames spread over it."""
    fn, types = dali().fn, dali().types
    room = n // sampling.segments >= sampling.span
    fits = fn.cast(room, dtype=types.INT32) * (sampling.mode == "segments")
    frames = dali_math().clamp(windows * fits + spread * (1 - fits), 0, n - 1)
    return fn.reshape(fn.cast(frames, dtype=types.INT32), shape=[count])


def _margin(sampling: SamplingConfig) -> int:
    return max(0, sampling.span - sampling.frames * sampling.stride) // 2


def _axis(values: np.ndarray, column: bool) -> Any:
    return dali().types.Constant(values.astype(np.int32).reshape((-1, 1) if column else (1, -1)))


def _double(value: Any) -> Any:
    return dali().fn.cast(value, dtype=dali().types.FLOAT64)


def _floor(value: Any) -> Any:
    return dali().fn.cast(dali_math().floor(value), dtype=dali().types.INT32)
