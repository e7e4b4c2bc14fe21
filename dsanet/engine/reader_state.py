"""The state of each process's webdataset reader: saved, so that nothing has to be read again.

Only this reader needs it; the other one starts at any sample directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from dsanet.engine.environment import dali_version, versions
from dsanet.engine.launch.distributed import World
from dsanet.engine.run_state import CheckpointContent, ReaderStates
from pipelines import Batch, LoaderError, TrainLoader

SKIPS = "it skips the videos of this epoch that are done, which takes a while"


def gather_states(world: World, own: bytes | None, samples: int) -> ReaderStates | None:
    """The readers' states of all processes for a checkpoint; every process must call it.

    own: `Batch.state` of the last batch that this process has trained on, if there is one.

    Returns None if a process has none.
    """
    gathered = world.gather_bytes(own or b"")
    if not all(gathered):
        return None
    states = [torch.from_numpy(np.frombuffer(state, np.uint8).copy()) for state in gathered]
    return {"samples": samples, "states": states}


def own_state(
    content: CheckpointContent, world: World, report: Callable[[str], None]
) -> bytes | None:
    """This process's reader state in a checkpoint, or None where this run cannot use it.

    report: is called with a line that says which of the two it is.
    """
    readers = content["readers"]
    problem = _why_unusable(content, world)
    if readers is None or problem:
        report(f"WARNING: reader: {problem}; {SKIPS}")
        return None
    report("reader: each process continues from its saved state")
    return bytes(readers["states"][world.rank].numpy())


def _why_unusable(content: CheckpointContent, world: World) -> str | None:
    readers = content["readers"]
    if readers is None or readers["samples"] != content["samples"]:
        return "the checkpoint has no state of it"
    if (count := len(readers["states"])) != world.size:  # the order depends on it
        return (
            f"the checkpoint was saved by {count} processes, now there are {world.size}, so that "
            "some videos of this epoch are used twice and some not at all"
        )
    saved, now = dali_version(content["versions"]), dali_version(versions())
    if saved != now:
        return f"the checkpoint was saved with DALI {saved}, this is DALI {now}"
    return None


def open_epoch(
    loader: TrainLoader,
    epoch: int,
    start: int,
    state: bytes | None,
    report: Callable[[str], None],
) -> Iterator[Batch]:
    """Batches of an epoch from position `start` on, from the reader's `state` if DALI takes it.

    Raises:
        LoaderError: when the epoch has no such position.
    """
    if state is not None:
        try:
            return loader.epoch(epoch, start, state)
        except LoaderError:
            raise
        except (RuntimeError, ValueError) as error:  # from DALI
            reason = str(error).splitlines()[0]
            report(f"WARNING: reader: DALI refuses its saved state ({reason}); {SKIPS}")
    return loader.epoch(epoch, start)
