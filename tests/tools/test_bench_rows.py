"""A benchmark that is cut keeps the rows it has, and one contestant that raises costs no other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench
import pytest
import torch
from benches import decode, loader, model, train
from benches import eval as eval_bench
from benches.report import Labelled, Report
from benches.videos import CACHE_VARIABLE, make_videos

from dsanet.engine.report.stall_meter import Times
from dsanet.errors import UserError


def rows_on_disk(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


class FakeStepper:
    """A contestant of `bench.py model` that does nothing, or raises what `FAULTS` names."""

    FAULTS: dict[str, list[BaseException | None]] = {}  # noqa: RUF012

    def __init__(self, contestant: model.Contestant, *_: Any) -> None:
        self.calls = iter(self.FAULTS.get(contestant.how, []))

    def call(self) -> None:
        if (fault := next(self.calls, None)) is not None:
            raise fault


def run_model(monkeypatch, path: Path, faults: dict[str, list[BaseException | None]]) -> Report:
    monkeypatch.setattr(model, "Stepper", FakeStepper)
    monkeypatch.setattr(FakeStepper, "FAULTS", faults)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parser = argparse.ArgumentParser()
    model.add_arguments(parser)
    words = ["--width=8", "--size=32", "--batch=1", "--blocks=3", "--calls=1", "--parts=train"]
    report = Report("model", path)
    model.run(parser.parse_args(words), report)
    return report


def test_model_reports_each_contestant_as_it_is_measured(tmp_path, monkeypatch) -> None:
    """Cut while the third one is warmed up, the rows of the first two are on disk."""
    path, cut = tmp_path / "model.json", {"folded fp32 eager": [KeyboardInterrupt()]}
    with pytest.raises(KeyboardInterrupt):
        run_model(monkeypatch, path, cut)
    hows = [row["how"] for row in rows_on_disk(path)]
    assert hows == ["release fp32 eager", "release bf16 eager"]
    assert all(row["ms"] > 0 for row in rows_on_disk(path))


def test_a_network_that_raises_costs_its_own_row_only(tmp_path, monkeypatch) -> None:
    faults: dict[str, list[BaseException | None]] = {
        "release bf16 eager": [RuntimeError("cuDNN\nhas no engine")],
        "folded fp32 eager": [None, None, torch.OutOfMemoryError("CUDA out of memory")],
    }
    report = run_model(monkeypatch, tmp_path / "model.json", faults)
    rows = {(row["network"], row["how"]): row for row in report.rows}
    assert rows["dsa_i3d_r18", "release bf16 eager"]["ms"] == "RuntimeError: cuDNN has no engine"
    assert rows["dsa_i3d_r18", "folded fp32 eager"]["ms"] == "out of memory"
    assert rows["dsa_i3d_r18", "folded bf16 eager"]["ms"] > 0
    assert rows["dsa_i3d_r18", "release fp32 eager"]["ratio"] == 1
    assert report.failures == 1  # to run out of memory is a result


def contest(calls: dict[str, Callable[[], None]]) -> decode.Contest:
    made = object.__new__(decode.Contest)
    made.contestants = [decode.Contestant(name, call, 4, 1e3) for name, call in calls.items()]
    made.absent, made.failed = ["no GPU here"], {}
    return made


def raise_at(number: int, error: BaseException) -> Callable[[], None]:
    calls: Iterator[int] = iter(range(10**9))

    def call() -> None:
        if next(calls) == number:
            raise error

    return call


def test_a_way_to_decode_that_raises_costs_its_own_row_only(tmp_path) -> None:
    args = argparse.Namespace(blocks=3, seconds=1e-9)
    refuses = raise_at(0, RuntimeError("NVDEC refuses MJPEG"))
    breaks = raise_at(2, RuntimeError("in its second block"))
    report = Report("decode", tmp_path / "decode.json")
    decode._measure(
        contest({"a": lambda: None, "b": refuses, "c": breaks, "d": lambda: None}), args, report
    )
    rows = {row["contestant"]: row for row in rows_on_disk(tmp_path / "decode.json")}
    assert rows["a"]["blocks"] == rows["d"]["blocks"] == 3
    assert "NVDEC refuses MJPEG" in rows["b"]["failed"]
    assert "second block" in rows["c"]["failed"]
    assert rows["no GPU here"]["videos_per_s"] is None
    assert report.failures == 2


def test_decode_reports_after_each_block(tmp_path) -> None:
    args = argparse.Namespace(blocks=2, seconds=1e-9)
    cut, report = raise_at(0, KeyboardInterrupt()), Report("decode", tmp_path / "decode.json")
    with pytest.raises(KeyboardInterrupt):
        decode._measure(contest({"a": lambda: None, "b": cut}), args, report)
    rows = rows_on_disk(tmp_path / "decode.json")
    assert next((row["contestant"], row.get("blocks")) for row in rows) == ("a", 1)


def test_train_reports_after_each_pair_of_blocks(tmp_path, monkeypatch) -> None:
    """Two warm-ups and a pair of blocks, then it is cut."""
    step = raise_at(5, KeyboardInterrupt())

    def run_block(*_: Any) -> float:
        step()
        return 0.5

    monkeypatch.setattr(train, "run_block", run_block)
    times = Times()
    trainer = SimpleNamespace(layout=SimpleNamespace(videos=32), epoch_times=times)
    report = Report("train", tmp_path / "train.json")
    labelled = Labelled(report, {"decode_on": "gpu"})
    with pytest.raises(KeyboardInterrupt):
        train.compare(trainer, {"synthetic": iter(()), "shards": iter(())}, 3, 8, labelled)
    rows = rows_on_disk(tmp_path / "train.json")
    assert [row["case"] for row in rows] == ["synthetic", "shards", "shards / synthetic"]
    assert rows[0]["videos_per_second"] == 64
    assert rows[2]["ratio"] == 1
    assert {row["decode_on"] for row in rows} == {"gpu"}


def test_eval_reports_after_each_pair_of_blocks(tmp_path, monkeypatch) -> None:
    """Two pairs of blocks, then it is cut."""
    cut, batch = raise_at(4, KeyboardInterrupt()), SimpleNamespace(clips=torch.zeros(1))

    def time_scores(*_: Any) -> float:
        cut()
        return 0.5

    monkeypatch.setattr(eval_bench, "time_scores", time_scores)

    class Loader:
        batch_size = 4

        def __iter__(self) -> Iterator[Any]:
            return iter([batch] * 100)

    args = argparse.Namespace(blocks=3, clips=8, crops=3)
    report = Report("eval", tmp_path / "eval.json")
    with pytest.raises(KeyboardInterrupt):
        eval_bench.compare(lambda _: None, Loader(), args, 1, report)  # type: ignore[arg-type]
    rows = rows_on_disk(tmp_path / "eval.json")
    cases = ["network alone", "from shards", "shards / network"]
    assert [row["case"] for row in rows] == cases
    assert rows[0]["videos_per_second"] == 8
    assert rows[0]["views_per_second"] == 8 * 24


def test_loader_goes_on_after_a_stage_that_raises(tmp_path, monkeypatch) -> None:
    done = []

    def breaks(*_: Any) -> None:
        raise RuntimeError("no such stage")

    monkeypatch.setattr(loader, "_whole", lambda *_: done.append("whole"))
    monkeypatch.setattr(loader, "_stages", breaks)
    monkeypatch.setattr(loader, "_overhead", lambda *_: done.append("tiny"))
    monkeypatch.setattr(loader, "_beside_training", lambda *_: done.append("beside"))
    monkeypatch.setattr(loader, "_split", lambda *_: None)
    report = Report("loader", tmp_path / "loader.json")
    loader.run(argparse.Namespace(data=None, reader="frames"), report)
    assert done == ["whole", "tiny", "beside"]
    assert rows_on_disk(report.path)[0]["failed"] == "RuntimeError: no such stage"
    assert report.failures == 1


def test_what_a_user_can_fix_is_raised() -> None:
    def wrong() -> None:
        raise UserError("--data /nowhere")

    report = Report("loader")
    with pytest.raises(UserError, match="nowhere"):
        report.attempt({"what": "x"}, wrong)
    assert report.rows == []


SCRIPT = """
import json, os, pathlib, sys
name, path = sys.argv[1], pathlib.Path(sys.argv[-1])
path.write_text(json.dumps({"arguments": sys.argv[2:-2], "clips": os.environ["CLIPS"]}))
sys.exit(1 if name == "decode" else 0)
"""


def test_all_runs_each_benchmark_in_its_process(tmp_path, monkeypatch, capfd) -> None:
    """One that fails is named at the end, the others go on, and all share the generated videos."""
    script = tmp_path / "bench.py"
    script.write_text(SCRIPT.replace("CLIPS", CACHE_VARIABLE), encoding="utf-8")
    monkeypatch.setattr(bench, "SCRIPT", script)
    assert bench.run_all(tmp_path / "x.json") == 1
    found = {name: json.loads((tmp_path / f"x-{name}.json").read_text()) for name in bench.ALL}
    assert {name: one["arguments"] for name, one in found.items()} == bench.ALL
    assert len({one["clips"] for one in found.values()}) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: failed: decode;")


def test_an_error_is_in_the_json_file_too(tmp_path, monkeypatch) -> None:
    def run(_args: argparse.Namespace, report: Report) -> None:
        report.add(what="first", value=1)
        raise RuntimeError("then it broke")

    monkeypatch.setitem(sys.modules, "benches.loader", SimpleNamespace(run=run))
    args = argparse.Namespace(benchmark="loader", json=tmp_path / "l.json")
    with pytest.raises(RuntimeError):
        bench.run_one(args)
    rows = rows_on_disk(tmp_path / "l.json")
    expected = [{"what": "first", "value": 1}, {"failed": "RuntimeError: then it broke"}]
    assert rows == expected


def test_benchmarks_share_generated_videos(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("DSANET_CLIPS", raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "generated000.mp4").write_bytes(b"made by the benchmark before")
    (path,) = make_videos(tmp_path / "one", 1)
    assert path.read_bytes() == b"made by the benchmark before"
