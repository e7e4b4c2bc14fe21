"""Memory that is used again must never change under somebody who still looks at it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from pipelines.decode.cpu_resize import UNDER_WAY, Buffers, mirror, resize
from tests.pipelines.loaders import train


def test_memory_is_used_again_once_nobody_holds_it():
    buffers = Buffers()
    first = buffers.take((2, 3, 4))
    place = first.data_ptr()
    del first
    assert buffers.take((2, 3, 4)).data_ptr() == place


@pytest.mark.parametrize(
    "made_of_it",
    [
        lambda t: t[1],
        lambda t: t.view(-1),
        lambda t: t.numpy(),
        lambda t: t.permute(2, 0, 1)[..., 1:],
        lambda t: torch.utils.dlpack.to_dlpack(t),
        lambda t: np.asarray(t)[0],
    ],
)
def test_whatever_is_made_of_a_tensor_keeps_its_memory(made_of_it):
    buffers = Buffers()
    tensor = buffers.take((2, 3, 4))
    place, kept = tensor.data_ptr(), made_of_it(tensor)
    del tensor
    gc.collect()
    assert buffers.take((2, 3, 4)).data_ptr() != place
    del kept
    gc.collect()
    assert buffers.take((2, 3, 4)).data_ptr() == place


def test_a_smaller_batch_takes_a_part():
    buffers = Buffers()
    place = buffers.take((5, 8)).data_ptr()
    small = buffers.take((3, 8))
    assert small.data_ptr() == place
    assert small.shape == (3, 8)
    assert small.is_contiguous()
    del small
    assert buffers.take((9, 8)).shape == (9, 8)


def test_a_consumer_that_keeps_everything_gets_memory_of_its_own():
    buffers = Buffers()
    held = [buffers.take((7,)) for _ in range(3 * UNDER_WAY)]
    assert len({tensor.data_ptr() for tensor in held}) == 3 * UNDER_WAY
    for number, tensor in enumerate(held):
        tensor.fill_(number)
    assert [int(tensor[0]) for tensor in held] == list(range(3 * UNDER_WAY))
    assert len(buffers._kept) == UNDER_WAY


def test_any_of_many_buffers_is_found_again():
    buffers = Buffers()
    held = [buffers.take((n + 1,)) for n in range(UNDER_WAY)]
    places = {tensor.data_ptr() for tensor in held}
    for number in (5, 2, UNDER_WAY - 1):
        place = held[number].data_ptr()
        held[number] = None
        held[number] = buffers.take((number + 1,))
        assert held[number].data_ptr() == place
    assert {tensor.data_ptr() for tensor in held} == places
    # None is large enough: a free one makes room for a new one.
    held[0] = held[1] = None
    large = buffers.take((100,))
    assert large.data_ptr() not in {t.data_ptr() for t in held if t is not None}
    assert len(buffers._kept) == UNDER_WAY


def test_batches_that_are_kept_do_not_change(split):
    """Two epochs of the same draws: one kept whole, one looked at batch by batch."""
    loader = train(split, batch_size=1)
    kept = [batch.clips for _ in range(2) for batch in loader.epoch(0)]
    half = len(kept) // 2
    assert half > UNDER_WAY
    for first, second in zip(kept[:half], kept[half:], strict=True):
        assert torch.equal(first, second)
    for first, batch in zip(kept, loader.epoch(0), strict=False):
        assert torch.equal(first, batch.clips)
    loader.close()


def test_mirror_swaps_left_and_right():
    frames = torch.randint(0, 256, (3, 5, 7, 3), dtype=torch.uint8)
    turned = frames.clone()
    mirror(turned)
    assert np.array_equal(turned.numpy(), frames.numpy()[:, :, ::-1])


def test_a_crop_of_the_right_size_is_copied_as_it_is():
    frames = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    out = torch.empty_like(frames)
    resize(frames, out)
    assert torch.equal(out, frames)
    assert out.data_ptr() != frames.data_ptr()
