"""The preflight takes real batches: faults show before the first step, and nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipelines.decode.decoder
from pipelines.decode.graph import GraphSpec
from pipelines.resources import LoaderResources
from tests.integration.scripts import course, records, train_here

OLD_DRIVER = "CUDA driver version is insufficient for CUDA runtime version"


def test_the_checked_batch_is_the_first_of_the_run(
    small_shards: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = []
    start = LoaderResources.start_epoch
    monkeypatch.setattr(
        LoaderResources, "start_epoch", lambda self, e: starts.append(self) or start(self, e)
    )
    words = ("--data", small_shards, "--config", tiny, "--epoch_limit", 1)
    counts = {}
    for preflight in ("true", "false"):
        run = tmp_path / preflight
        assert train_here(*words, "--out", run, "--runtime.preflight", preflight) == 0
        counts[preflight] = len(starts)
        starts.clear()
    assert course(tmp_path / "true") == course(tmp_path / "false")
    assert counts == {"true": 3, "false": 2}  # only validation starts once more


def test_a_validation_that_cannot_be_decoded_shows_before_the_first_step(
    small_shards: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    build = pipelines.decode.decoder.build_graph

    def old_driver(spec: GraphSpec) -> Any:
        if not spec.flip:  # validation's
            raise RuntimeError(OLD_DRIVER)
        return build(spec)

    monkeypatch.setattr(pipelines.decode.decoder, "build_graph", old_driver)
    run = tmp_path / "run"
    assert train_here("--data", small_shards, "--config", tiny, "--out", run) == 1
    assert capfd.readouterr().err.startswith("error: the driver of the GPU")
    assert not records(run)
