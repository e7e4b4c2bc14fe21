"""Buffers are reused only when nothing refers to them; resizing and flipping."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from pipelines.decode.cpu_resize import IN_FLIGHT, BufferPool, flip, resize
from tests.pipelines.loaders import train


def test_memory_is_reused_when_nothing_refers_to_it():
    buffers = BufferPool()
    first = buffers.take((2, 3, 4))
    address = first.data_ptr()
    del first
    assert buffers.take((2, 3, 4)).data_ptr() == address


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[1],
        lambda t: t.view(-1),
        lambda t: t.numpy(),
        lambda t: t.permute(2, 0, 1)[..., 1:],
        lambda t: torch.utils.dlpack.to_dlpack(t),
        lambda t: np.asarray(t)[0],
    ],
)
def test_views_of_a_tensor_keep_its_memory(view):
    buffers = BufferPool()
    tensor = buffers.take((2, 3, 4))
    address, derived = tensor.data_ptr(), view(tensor)
    del tensor
    gc.collect()
    assert buffers.take((2, 3, 4)).data_ptr() != address
    del derived
    gc.collect()
    assert buffers.take((2, 3, 4)).data_ptr() == address


def test_a_smaller_batch_reuses_a_larger_buffer():
    buffers = BufferPool()
    address = buffers.take((5, 8)).data_ptr()
    small = buffers.take((3, 8))
    assert small.data_ptr() == address
    assert small.shape == (3, 8)
    assert small.is_contiguous()
    del small
    assert buffers.take((9, 8)).shape == (9, 8)


def test_tensors_that_are_kept_have_their_own_memory():
    buffers = BufferPool()
    held = [buffers.take((7,)) for _ in range(3 * IN_FLIGHT)]
    assert len({tensor.data_ptr() for tensor in held}) == 3 * IN_FLIGHT
    for number, tensor in enumerate(held):
        tensor.fill_(number)
    assert [int(tensor[0]) for tensor in held] == list(range(3 * IN_FLIGHT))
    assert len(buffers) == IN_FLIGHT


def test_any_free_buffer_is_reused():
    buffers = BufferPool()
    held = [buffers.take((n + 1,)) for n in range(IN_FLIGHT)]
    addresss = {tensor.data_ptr() for tensor in held}
    for number in (5, 2, IN_FLIGHT - 1):
        address = held[number].data_ptr()
        held[number] = None
        held[number] = buffers.take((number + 1,))
        assert held[number].data_ptr() == address
    assert {tensor.data_ptr() for tensor in held} == addresss
    # None is large enough: a new one takes the slot of a free one.
    held[0] = held[1] = None
    large = buffers.take((100,))
    assert large.data_ptr() not in {t.data_ptr() for t in held if t is not None}
    assert len(buffers) == IN_FLIGHT


def test_batches_that_are_kept_do_not_change(split):
    """Batches of an epoch, kept in a list, equal those of the same epoch read again."""
    loader = train(split, batch_size=1)
    clips = [batch.clips for _ in range(2) for batch in loader.epoch(0)]
    half = len(clips) // 2
    assert half > IN_FLIGHT
    for first, second in zip(clips[:half], clips[half:], strict=True):
        assert torch.equal(first, second)
    for first, batch in zip(clips, loader.epoch(0), strict=False):
        assert torch.equal(first, batch.clips)
    loader.close()


def test_flip_swaps_left_and_right():
    frames = torch.randint(0, 256, (3, 5, 7, 3), dtype=torch.uint8)
    flipped = frames.clone()
    flip(flipped)
    assert np.array_equal(flipped.numpy(), frames.numpy()[:, :, ::-1])


def test_a_crop_of_the_target_size_is_copied():
    frames = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    out = torch.empty_like(frames)
    resize(frames, out)
    assert torch.equal(out, frames)
    assert out.data_ptr() != frames.data_ptr()
