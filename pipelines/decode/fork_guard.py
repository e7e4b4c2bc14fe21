"""Keeps forked children from freeing DALI's pipelines.

A child of os.fork() has none of the threads that a pipeline waits for when it is freed, so it
would hang when it exits, whether it uses the pipeline or not. DALI 2.4 offers no way out: it frees
every pipeline in an atexit handler of its own, and the destructors of its objects free what that
handler leaves. So in a child the handler must find no pipeline (the attribute `_pipe` is what it
looks at), and the object behind it must never be destroyed: one reference is added to it that
nothing gives back.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

_PIPELINES: weakref.WeakSet[Any] = weakref.WeakSet()


def guard_against_forks(pipeline: Any) -> Any:
    """Make sure that no forked child frees this pipeline; returns the pipeline."""
    _PIPELINES.add(pipeline)
    return pipeline


def _abandon_pipelines() -> None:
    for pipeline in list(_PIPELINES):
        if (backend := getattr(pipeline, "_pipe", None)) is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend))
            pipeline._pipe = None


os.register_at_fork(after_in_child=_abandon_pipelines)
