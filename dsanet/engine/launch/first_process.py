"""Work that rank 0 does for all processes, which all get its result or its error."""

from __future__ import annotations

import json
from collections.abc import Callable

from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.launch.distributed import World
from dsanet.errors import UserError


def on_first_process(world: World, action: Callable[[], str]) -> str:
    """Run `action` on rank 0 alone; returns its result, or raises its error, on all processes.

    Raises:
        EngineError, UsageError: what `action` has raised on rank 0.
    """
    outcome = {"result": "", "error": "", "exit_code": 0}
    if world.main:
        try:
            outcome["result"] = action()
        except UserError as error:
            outcome |= {"error": str(error), "exit_code": error.exit_code}
    outcome = json.loads(world.broadcast(json.dumps(outcome).encode()))
    if outcome["exit_code"] == UsageError.exit_code:
        raise UsageError(outcome["error"])
    if outcome["exit_code"]:
        raise EngineError(outcome["error"])
    return str(outcome["result"])
