"""Sampling in the DALI graph against sampling in NumPy, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines import SamplingConfig
from pipelines.dali_reader.sampling import eval_picks
from pipelines.decode.graph import dali
from pipelines.plan.sampling import test_frames as clip_frames
from pipelines.plan.sampling import val_frames

COUNTS = [*range(1, 400), 1000, 3001, 36_000, 99_999]


def in_the_graph(sampling: SamplingConfig, clips: int | None) -> list[np.ndarray]:
    """The frames of videos of COUNTS frames."""

    @dali().pipeline_def(batch_size=len(COUNTS), num_threads=1, device_id=None)
    def graph():
        n = dali().fn.external_source(name="n", dtype=dali().types.INT32, ndim=0)
        return eval_picks(n, sampling, clips)

    pipeline = graph()
    pipeline.build()
    pipeline.feed_input("n", np.array(COUNTS, np.int32))
    (output,) = pipeline.run()
    return [np.asarray(output[row]) for row in range(len(COUNTS))]


@pytest.mark.parametrize("mode", ["segments", "spread"])
@pytest.mark.parametrize(
    ("segments", "frames", "stride", "window"),
    [(4, 4, 8, None), (4, 4, 8, 64), (8, 1, 1, None), (3, 7, 5, None), (10, 5, 3, None)],
)
@pytest.mark.parametrize("clips", [None, 1, 3, 8, 10, 13])
def test_frames_equal_those_of_the_default_reader(mode, segments, frames, stride, window, clips):
    sampling = SamplingConfig(
        segments=segments, frames=frames, stride=stride, window=window, mode=mode
    )
    for n, frames_of_graph in zip(COUNTS, in_the_graph(sampling, clips), strict=True):
        expected = val_frames(n, sampling) if clips is None else clip_frames(n, clips, sampling)
        assert frames_of_graph.tolist() == expected.reshape(-1).tolist(), n
