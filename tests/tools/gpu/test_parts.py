"""The parts run on a CPU at toy sizes, and report what needs a GPU as not run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gpu_check
import pytest
import torch
from gpu import agreement, loop
from gpu.check import read
from gpu.evaluation import growth
from gpu.machine import engines_of, mapped_libraries

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes the real sizes")
ROOT = Path(__file__).resolve().parents[3]


def named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row.get("what") or row["case"]: row for row in rows}


def test_the_command_runs_for_real(tmp_path: Path) -> None:
    """Two parts, each in its process; the test marked slow runs them all."""
    assert gpu_check.main(["--json", str(tmp_path), "--parts", "machine", "step"]) == 0
    summary = read(tmp_path / "summary.json")
    assert summary["toy"] is True
    assert [part["state"] for part in summary["parts"]] == ["done", "done"]
    machine = named(summary["machine"]["rows"])
    assert machine["version of torch"]["value"] == torch.__version__
    assert machine["GPU"]["not_run"] == "needs a GPU"
    assert "libdali" in " ".join(r.get("value", "") for r in summary["machine"]["rows"]
                                 if r["what"] == "loaded library")  # fmt: skip
    step = read(tmp_path / "step.json")
    rows = named(step["rows"])
    assert step["versions"]["torch"]
    assert rows["training step"]["videos_per_second"] > 0
    sums = [row for row in step["rows"] if row["what"] == "sum"]
    assert sum(row["share"] for row in sums) == pytest.approx(1)
    assert "convolution, both gradients" in {row["kind"] for row in sums}
    assert 0 < len([row for row in step["rows"] if row["what"] == "kernel"]) <= 30
    goals = {row["goal"]: row for row in summary["goals"]}
    assert goals["training step, T = 4"]["verdict"] == "toy sizes"


@pytest.mark.slow
def test_all_parts_run_for_real(tmp_path: Path) -> None:
    assert gpu_check.main(["--json", str(tmp_path), "--minutes", "20"]) == 0
    summary = read(tmp_path / "summary.json")
    assert {part["state"] for part in summary["parts"]} == {"done"}
    assert len(list(tmp_path.iterdir())) <= 8
    measured = {row["goal"]: row["measured"] for row in summary["goals"]}
    assert measured.pop("memory at batch 32") is None
    assert all(measured.values())


def test_pixels(part_rows) -> None:
    rows = named(part_rows("pixels"))
    assert all(row["passed"] for row in rows.values() if "passed" in row)
    assert rows["JPEG, whole frames"]["largest"] <= 1
    assert rows["vp9, DALI against PyAV"]["passed"]
    for what in ("h264 by NVDEC", "hevc by NVDEC", "hand-over to a busy GPU"):
        assert rows[what]["not_run"] == "needs a GPU"


def test_loop(part_rows) -> None:
    rows = named(part_rows("loop"))
    assert rows["shards / synthetic"]["ratio"] > 0
    assert rows["shards"]["decode_on"] == "cpu"
    assert rows["wake-up of a thread, shards"]["samples"] > 0
    assert rows["decode_on gpu"]["not_run"] == "needs a GPU"


def test_evaluation(part_rows) -> None:
    rows = part_rows("evaluation")
    assert named(rows)["from shards"]["views_per_second"] > 0
    assert [row["step"] for row in rows if row.get("case") == "memory"] == [1, 2, 3, 4]
    assert named(rows)["growth of memory"]["passed"]


def test_agreement(part_rows) -> None:
    rows = named(part_rows("agreement"))
    assert rows["dsa_i3d_r18, fp32, compiled against eager"]["passed"]
    assert rows["dsa_i3d_r18, bf16, compiled against eager"]["passed"]
    assert rows["pytest -m gpu"]["not_run"] == "needs a GPU"


def test_a_network_that_is_compiled_wrongly_shows(job, monkeypatch) -> None:
    def wrong(network: torch.nn.Module, _backend: str) -> Any:
        return lambda clips: network(clips) * 1.001

    monkeypatch.setattr(agreement, "compile_with", wrong)
    agreement._compare(job, "dsa_i3d_r18")
    assert job.report.rows[0]["passed"] is False


def test_rates(part_rows) -> None:
    rows = named(part_rows("rates"))
    measured = [row for row in rows.values() if "videos_per_second" in row]
    assert len(measured) >= 2
    assert all(row["videos_per_second"] > 0 for row in measured)
    assert rows["NVDEC by codec and threads"]["not_run"] == "needs a GPU"


def test_variants(part_rows) -> None:
    rows = named(part_rows("variants"))
    assert rows["T = 8"]["over_baseline"] > 0
    assert rows["TSN, without DSA"]["videos_per_second"] > 0
    # An option that this version of torch does not have costs its own row only.
    assert "no_such_option" in rows["no such option"]["unavailable"]


def test_a_step_that_raises_costs_its_own_row_only(job) -> None:
    def broken() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    assert job.attempt("batch 96", broken) is None
    assert job.attempt("batch 64", lambda: 3) == 3
    text = "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB"
    assert job.report.rows == [{"what": "batch 96", "failed": text}]


def test_engines_that_nvidia_smi_lists() -> None:
    text = """
GPU 00000000:04:00.0
    Utilization
        GPU                               : 0 %
        Memory                            : 0 %
        Encoder                           : N/A
        Decoder                           : 0 %
        JPEG                              : 0 %
        OFA                               : 0 %
    GPU Utilization Samples
        Duration                          : 16.46 sec
"""
    assert engines_of(text) == {"Encoder": "N/A", "Decoder": "0 %", "JPEG": "0 %", "OFA": "0 %"}


def test_libraries_that_a_process_has_loaded() -> None:
    text = """7f00-7f01 r-xp 00000000 08:01 123    /x/nvidia/cu13/lib/libnvjpeg.so.13
7f02-7f03 r-xp 00000000 08:01 124    /x/nvidia/cu13/lib/libnvjpeg.so.13
7f04-7f05 r-xp 00000000 08:01 125    /usr/lib/libc.so.6
7f06-7f07 r-xp 00000000 08:01 126    /usr/lib/x86_64/libnvcuvid.so.580.65.06
7f08-7f09 rw-p 00000000 00:00 0      [heap]
7f0a-7f0b rw-p 00000000 00:00 0
"""
    expected = ["/usr/lib/x86_64/libnvcuvid.so.580.65.06", "/x/nvidia/cu13/lib/libnvjpeg.so.13"]
    assert mapped_libraries(text) == expected


def test_the_loaders_share_of_the_gpu_memory() -> None:
    before = {"used_gib": 20.0, "reserved_gib": 18.0, "peak_gib": 17.0}
    after = {"used_gib": 23.5, "reserved_gib": 19.0, "peak_gib": 18.0}
    assert loop.memory_row(before, after)["loader_gib"] == pytest.approx(2.5)
    assert loop.memory_row({}, {}) == {"case": "GPU memory"}


def test_growth_of_memory_leaves_the_start_out() -> None:
    samples = [{"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 5.0}, {"a": 2.5, "b": 5.0}]
    assert growth(samples) == pytest.approx(0.5)
    assert growth(samples[:2]) == 0


def test_wake_ups_are_measured() -> None:
    with loop.WakeUps() as probe:
        time.sleep(0.1)
    figures = probe.summary()
    assert figures["samples"] > 0
    assert figures["p99_ms"] >= figures["median_ms"] >= 0


def test_every_file_with_gpu_tests_is_found() -> None:
    found = agreement.gpu_test_files(ROOT / "tests")
    names = {path.name for path in found}
    assert {"test_network_on_gpu.py", "test_backend.py", "test_loss.py"} <= names
    assert found[-1].name == "test_network_on_gpu.py"  # compiling is slow


def test_counts_and_messages_of_junit_files(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 1 == 2, 'two\\nlines'\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError('no GPU')\n"
        "def test_c(broken): pass\n"
        "def test_d(): pytest.skip('later')\n"
    )
    result = tmp_path / "junit.xml"
    pytest.main(["-p", "no:cacheprovider", "-p", "no:terminal", "-c", "/dev/null",
                 "--rootdir", str(tmp_path), f"--junitxml={result}", str(tmp_path)])  # fmt: skip
    counts, failures = agreement.read_junit(result)
    assert counts == {"tests": 4, "skipped": 1, "failures": 1, "errors": 1}
    assert [name for name, _ in failures] == ["test_b", "test_c"]
    assert "two lines" in failures[0][1]
    assert "no GPU" in failures[1][1]
