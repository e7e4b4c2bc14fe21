"""Checkpoints from strangers: each wrong key is one line that names it, before memory is taken."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dsanet.engine import EngineError
from dsanet.engine.checkpoint import CheckpointFolder, load_file
from dsanet.engine.checkpoint_schema import CHECKS, check_momentum
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.run_state import CheckpointContent, read_checkpoint
from dsanet.errors import UserError
from tests.dsanet.engine.contents import CLASSES, checkpoint_content

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return checkpoint_content()


def test_every_key_is_checked() -> None:
    assert CHECKS.keys() == CheckpointContent.__required_keys__


def test_a_valid_checkpoint_is_loaded(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    trained = load_trained(tmp_path / "a.pt")
    assert trained.classes == tuple(CLASSES)
    assert trained.network["width"] == 16


def test_a_checkpoint_without_a_normalisation_has_imagenets(
    content: dict[str, Any], tmp_path: Path
) -> None:
    older = copy.deepcopy(content)
    del older["config"]["network"]["mean"], older["config"]["network"]["std"]
    torch.save(older, tmp_path / "a.pt")
    assert load_trained(tmp_path / "a.pt").network["mean"] == [123.675, 116.28, 103.53]


def put(*keys: str, value: Any) -> Change:
    """A change that sets an inner key."""

    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def drop(*keys: str) -> Change:
    """A change that removes an inner key."""

    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def weight(name: str, change: Callable[[torch.Tensor], Any]) -> Change:
    """A change of one of the weights."""

    def apply(content: dict[str, Any]) -> None:
        content["model"][name] = change(content["model"][name].clone())

    return apply


NESTED: Any = []
for _ in range(300):
    NESTED = [NESTED]
CHANGES: list[tuple[Change, str]] = [
    (drop("samples"), "lacks samples"),
    (put("more", value=1), "more is not a key of a checkpoint"),
    (put("samples", value=-1), "samples must be a number of at least 0, got -1"),
    (put("samples", value=torch.tensor(3)), "samples must be"),
    (put("validated", value=2**70), "validated must be"),
    (put("score", value=float("inf")), "score must be a finite number"),
    (put("model", value={}), "model must hold tensors by name"),
    (put("model", value=[1]), "model must hold tensors by name"),
    (put("model", 7, value=torch.zeros(1)), "model must hold tensors by name, 7 is"),
    (put("model", "fc.bias", value=[0.0]), r"fc\.bias is of type list"),
    (weight("fc.bias", lambda t: t.to_sparse()), r"fc\.bias is sparse"),
    (weight("fc.bias", lambda t: t.to("meta")), r"fc\.bias has no content"),
    (weight("fc.bias", lambda t: t.to(torch.complex64)), r"fc\.bias has numbers of type complex64"),
    (weight("fc.bias", lambda t: t * torch.nan), r"fc\.bias has numbers that are not finite"),
    (weight("trunk.bn1.running_var", lambda t: t * torch.nan), r"running_var has numbers that"),
    (weight("fc.bias", lambda t: t[0]), r"model\.fc\.bias has shape \(\), its config gives \(3,\)"),
    (weight("fc.bias", lambda t: t[:1].expand(10**12)), r"fc\.bias has shape \(1000000000000,\)"),
    (weight("fc.bias", lambda t: t[:0]), r"model\.fc\.bias has shape \(0,\)"),
    (drop("model", "fc.bias"), r"lacks the weights fc\.bias"),
    (put("model", "fc.more", value=torch.zeros(1)), r"model\.fc\.more is not of the network"),
    (put("average", value={"fc.bias": 3}), "average must hold tensors"),
    (put("optimizer", value=[]), "optimizer must hold state and param_groups"),
    (
        put("optimizer", "state", value={0: {"a": torch.zeros(2).to_sparse()}}),
        r"state\.0\.a is spar",
    ),
    (put("config", value=None), "config must be a mapping"),
    (drop("config", "sampling"), "config must be a mapping of names to values at sampling"),
    (put("config", "model", value=["dsa"]), "config must name a network"),
    (put("config", "model", value="dsa_i3d_r1"), "config cannot be used: unknown network"),
    (put("config", "network", "width", value=10**9), "width must be at most 2048"),
    (put("config", "network", "width", value=64), r"has shape .*, its config gives"),
    (put("config", "network", "blocks", value=[10**9] * 4), "blocks must be at most 200"),
    (put("config", "network", "alpha", value=NESTED), "alpha must be of type int"),
    (put("config", "network", "moer", value=1), "unknown option 'moer'"),
    (put("config", "sampling", "segments", value=-4), r"-4 at sampling\.segments"),
    (put("config", "sampling", "segments", value="4"), r"'4' at sampling\.segments"),
    (put("config", "sampling", "stirde", value=4), r"unknown setting sampling\.stirde"),
    (put("config", "sampling", "mode", value="none"), r"sampling\.mode must be one of"),
    (put("config", "augment", "size", value=10**9), r"augment\.size, got 1000000000"),
    (put("classes", value=[]), "classes must be a list of 1 to"),
    (put("classes", value=[1, 2, 3]), "classes must be names"),
    (put("shards", value=NESTED), "shards must be a mapping"),
    (put("readers", value={"samples": 1, "states": ["x"]}), "readers must have bytes at states"),
    (put("data", value={"order_sha256": 3}), "data must hold"),
    (put("precision", value=3), "precision must be text"),
    (put("format", value="x" * 500), "has format 'xxx"),
    (put("\x1b[2J\nerror: ", value=1), r"\\x1b\[2J\\nerror"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[m[:40] for _, m in CHANGES])
def test_a_wrong_key_is_one_line_that_names_it(
    change: Change, message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    changed = copy.deepcopy(content)
    change(changed)
    torch.save(changed, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message) as caught:
        load_trained(tmp_path / "a.pt")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/a.pt: ")
    assert text.isprintable()
    assert len(text) < 600


def test_momentum_of_another_shape_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(3, 2)
    optimizer.step()
    saved = optimizer.state_dict()
    check_momentum(content | {"optimizer": saved}, [parameter.shape], tmp_path)
    saved["state"][0]["momentum_buffer"] = torch.zeros(2, 3)
    with pytest.raises(
        EngineError, match=r"optimizer\.state\.0\.momentum_buffer has another shape"
    ):
        check_momentum(content | {"optimizer": saved}, [parameter.shape], tmp_path)


def test_a_pipe_in_the_place_of_a_checkpoint_blocks_nothing(tmp_path: Path) -> None:
    path = tmp_path / f"step-000000001-{'0' * 16}.pt"
    os.mkfifo(path)
    start = time.monotonic()
    assert CheckpointFolder(tmp_path).files() == []
    with pytest.raises(EngineError, match="not a regular file"):
        load_file(path)
    with pytest.raises(EngineError, match="no checkpoint there"):
        load_trained(path)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "mark", ['{"file": "../a.pt", "value": 1}', '{"file": 3, "value": 1}', "[" * 100_000, "[]"]
)
def test_a_forged_mark_of_the_best_checkpoint_is_ignored(mark: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.path.mkdir()
    (folder.path / "best.json").write_text(mark)
    assert folder.best() is None


def test_a_checkpoint_with_objects_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    """Only weights of other projects may have them, as empty objects."""
    torch.save(content | {"versions": {"a": Path("b")}}, tmp_path / "a.pt")
    with pytest.raises(EngineError, match="more than tensors"):
        read_checkpoint(tmp_path / "a.pt")
