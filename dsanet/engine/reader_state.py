"""Where the readers of all processes stand: kept in checkpoints, so that nothing is read twice.

Only the webdataset reader has such a place; the other one goes to any sample at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dsanet.engine.launch.distributed import World
from pipelines import Batch, LoaderError, TrainLoader

Places = dict[str, Any]


def gather_places(world: World, place: bytes | None, samples: int) -> Places | None:
    """The readers' places after `samples`, as a checkpoint holds them; every process must call it.

    place: `Batch.state` of the last batch that this process has trained on. None where a process
    has none.
    """
    places = world.gather_bytes(place or b"")
    if not all(places):
        return None
    states = [torch.from_numpy(np.frombuffer(p, np.uint8).copy()) for p in places]
    return {"samples": samples, "states": states}


def own_place(
    state: dict[str, Any], world: World, dali: str | None, say: Callable[[str], None]
) -> bytes | None:
    """This process's part of a checkpoint's `state`, if it fits this run; says so if it does not.

    dali: version of DALI now; another one may keep its places in another way.
    """
    kept, before = state.get("readers"), dali_version(state["versions"])
    if kept is None or kept["samples"] != state["samples"]:
        why = "the checkpoint does not say where it stood"
    elif len(kept["states"]) != world.size:
        # The order depends on their number, too.
        why = (
            f"its place was kept by {len(kept['states'])} processes, these are {world.size}, so "
            "that some videos of this epoch come twice and some not at all"
        )
    elif before != dali:
        why = f"its place was kept by DALI {before}, this is {dali}"
    else:
        say("reader: each process goes on where it stood")
        return bytes(kept["states"][world.rank].numpy())
    say(f"WARNING: reader: {why}; it passes over as many videos as were seen, which takes a while")
    return None


def dali_version(versions: dict[str, str]) -> str | None:
    """Version of DALI among those of a run."""
    return next((v for name, v in versions.items() if name.startswith("nvidia-dali")), None)


def open_epoch(
    loader: TrainLoader, epoch: int, start: int, place: bytes | None, say: Callable[[str], None]
) -> Iterator[Batch]:
    """Batches of an epoch from position `start`, where the reader is put to its `place` if it can.

    Raises:
        LoaderError: when there is no such position.
    """
    if place is not None:
        try:
            return loader.epoch(epoch, start, place)
        except LoaderError:
            raise
        except (RuntimeError, ValueError) as error:  # whatever DALI finds in it
            why = str(error).splitlines()[0]
            say(
                f"WARNING: reader: DALI refuses its place ({why}); it passes over as many videos "
                "as were seen"
            )
    return loader.epoch(epoch, start)
