"""Checks the content of a checkpoint file before any of it is used.

People share checkpoints, so a key may be missing, of another type, or made to do harm. Each problem
is one line that names the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dsanet
from dsanet.engine.errors import EngineError
from dsanet.errors import UserError, printable
from dsanet.weights.tensors import why_not_plain
from pipelines import SamplingConfig

MOST = 2**53  # of a count of videos or steps
MOST_CLASSES = 2**24
MOST_PIXELS = 4096
SHOWN = 80


def check_content(content: Mapping[str, Any], path: Path) -> None:
    """Check the keys of a checkpoint, and the types and bounds of their values.

    Raises:
        EngineError: naming the first key that is missing, unknown or wrong.
    """
    for key in content.keys() - CHECKS.keys():
        raise _wrong(path, printable(key, SHOWN), "is not a key of a checkpoint")
    for key, check in CHECKS.items():
        if key not in content:
            raise EngineError(f"{path}: lacks {key}; give another checkpoint")
        if problem := check(content[key]):
            raise _wrong(path, key, problem)


def check_network(content: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights fit the network of a checkpoint's settings, without building it.

    Raises:
        EngineError: naming the first setting or tensor that does not fit.
    """
    config = content["config"]
    try:
        sampling = sampling_of(config)
        with torch.device("meta"):
            model = dsanet.build_model(
                config["model"],
                num_classes=len(content["classes"]),
                segments=sampling.segments,
                **config["network"],
            )
    except UserError as error:
        raise _wrong(path, "config", f"cannot be used: {error}") from error
    expected = model.state_dict()
    for name in expected.keys() - weights.keys():
        raise EngineError(f"{path}: lacks the weights {name}; give another checkpoint")
    for name in weights.keys() - expected.keys():
        raise _wrong(path, f"model.{printable(name, SHOWN)}", "is not of the network in its config")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            shape = printable(tuple(weights[name].shape), SHOWN)
            problem = f"has shape {shape}, its config gives {tuple(tensor.shape)}"
            raise _wrong(path, f"model.{name}", problem)
        if not torch.isfinite(weights[name]).all():
            raise _wrong(path, f"model.{name}", "has numbers that are not finite")


def sampling_of(config: Mapping[str, Any]) -> SamplingConfig:
    """The sampling in the settings of a checkpoint, which have been checked.

    Raises:
        LoaderError: for a value out of range.
    """
    return SamplingConfig(**config["sampling"])


def check_momentum(content: Mapping[str, Any], shapes: list[torch.Size], path: Path) -> None:
    """Check that each tensor of the optimizer has the shape of its parameter.

    Raises:
        EngineError: naming the first that has not.
    """
    for index, entries in content["optimizer"]["state"].items():
        for name, value in entries.items():
            fits = isinstance(index, int) and 0 <= index < len(shapes)
            if isinstance(value, Tensor) and value.ndim and not (
                fits and value.shape == shapes[index]
            ):  # fmt: skip
                key = f"optimizer.state.{printable(index, SHOWN)}.{printable(name, SHOWN)}"
                raise _wrong(path, key, "has another shape than its parameter")


def _wrong(path: Path, key: str, problem: str) -> EngineError:
    return EngineError(f"{path}: {key} {problem}; give another checkpoint")


def _count(value: Any) -> str:
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST
    return "" if valid else f"must be a number of at least 0, got {printable(repr(value), SHOWN)}"


def _score(value: Any) -> str:
    valid = value is None or (isinstance(value, (int, float)) and math.isfinite(value))
    return "" if valid else f"must be a finite number, got {printable(repr(value), SHOWN)}"


def _weights(value: Any) -> str:
    if not isinstance(value, dict) or not value:
        return f"must hold tensors by name, got {type(value).__name__}"
    for name, tensor in value.items():
        shown = printable(name, SHOWN)
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            return f"must hold tensors by name, {shown} is of type {type(tensor).__name__}"
        if problem := why_not_plain(tensor):
            return f"has a tensor that cannot be used: {shown} {problem}"
        is_statistic = name.endswith(("running_mean", "running_var"))  # not read in training
        if _is_dense(tensor) and not is_statistic and not torch.isfinite(tensor).all():
            return f"has a tensor that cannot be used: {shown} has numbers that are not finite"
    return ""


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor has as many numbers as its memory, so that reading it is no more work."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _average(value: Any) -> str:
    return "" if value is None else _weights(value)


def _optimizer(value: Any) -> str:
    valid = isinstance(value, dict) and isinstance(value.get("state"), dict)
    groups = value.get("param_groups") if isinstance(value, dict) else None
    if not valid or not isinstance(groups, list) or not all(isinstance(g, dict) for g in groups):
        return "must hold state and param_groups"
    for index, entries in value["state"].items():
        if not isinstance(entries, dict):
            return f"must hold a mapping at state.{printable(index, SHOWN)}"
        for name, tensor in entries.items():
            if isinstance(tensor, Tensor) and (problem := why_not_plain(tensor)):
                return f"state.{printable(index, SHOWN)}.{printable(name, SHOWN)} {problem}"
    return ""


def _mapping(value: Any) -> str:
    valid = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return "" if valid else "must be a mapping of names to values"


def _precision(value: Any) -> str:
    valid = value is None or isinstance(value, str)
    return "" if valid else f"must be text, got {type(value).__name__}"


def _classes(value: Any) -> str:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_CLASSES:
        return f"must be a list of 1 to {MOST_CLASSES} names"
    return "" if all(isinstance(name, str) for name in value) else "must be names, that is texts"


def _config(value: Any) -> str:
    if problem := _mapping(value):
        return problem
    if not isinstance(value.get("model"), str):
        return "must name a network at model"
    for key in ("network", "sampling", "augment"):
        if problem := _mapping(value.get(key)):
            return f"{problem} at {key}"
    if problem := _sampling(value["sampling"]):
        return problem
    size = value["augment"].get("size")
    if not isinstance(size, int) or not 1 <= size <= MOST_PIXELS:
        return f"must have 1 to {MOST_PIXELS} at augment.size, got {printable(repr(size), SHOWN)}"
    return ""


def _sampling(value: dict[str, Any]) -> str:
    known = {field.name: field.default for field in fields(SamplingConfig)}
    for key, setting in value.items():
        name = f"sampling.{printable(key, SHOWN)}"
        if key not in known:
            return f"has the unknown setting {name}"
        if key == "mode":
            valid = isinstance(setting, str)
        else:
            valid = (key == "window" and setting is None) or (not _count(setting)
                                                              and setting <= 10**6)  # fmt: skip
        if not valid:
            return f"has {printable(repr(setting), SHOWN)} at {name}"
    return ""


def _readers(value: Any) -> str:
    if value is None:
        return ""
    if _mapping(value) or value.keys() != {"samples", "states"} or _count(value["samples"]):
        return "must hold samples and states"
    states = value["states"]
    valid = isinstance(states, list) and all(
        isinstance(s, Tensor) and not why_not_plain(s) and s.dtype is torch.uint8 and s.ndim == 1
        for s in states
    )
    return "" if valid else "must have bytes at states"


def _data(value: Any) -> str:
    if value is None:
        return ""
    if _mapping(value) or value.keys() != {"effective_sha256", "order_sha256"}:
        return "must hold effective_sha256 and order_sha256"
    return next((f"must have a text at {k}" for k, v in value.items()
                 if not (isinstance(v, str) or (v is None and k[0] == "e"))), "")  # fmt: skip


# Every key of a checkpoint, with the function that says what is wrong with its value.
CHECKS: dict[str, Callable[[Any], str]] = {
    "format": _count,
    "score": _score,
    "samples": _count,
    "validated": _count,
    "model": _weights,
    "average": _average,
    "optimizer": _optimizer,
    "scaler": _mapping,
    "precision": _precision,
    "config": _config,
    "classes": _classes,
    "videos": _count,
    "shards": _mapping,
    "versions": _mapping,
    "readers": _readers,
    "data": _data,
}
