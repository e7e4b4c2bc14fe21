"""Several processes, one of which waits for data: the others wait for it, and it is named."""

from __future__ import annotations

from pathlib import Path

from tests.integration.scripts import records, run_script

# The disk of rank 1 is slow.
TRAIN = """
import os, sys, time
from dsanet.engine.launch.signals import Signals
from dsanet.engine.main import run_command, train_main
from pipelines.read.frames import FrameReader

pread = FrameReader.pread

def slow(self, *arguments):
    time.sleep(0.04)
    return pread(self, *arguments)

if os.environ["RANK"] == "1":
    FrameReader.pread = slow
sys.exit(run_command(lambda: train_main(Signals(), sys.argv[1:])))
"""


def test_the_process_that_waits_most_is_reported(
    small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("--data", small_shards, "--config", tiny, "--out", tmp_path / "run")
    more = ("--validation.split", "null", "--runtime.preflight", "false", "--log.every", 5)
    more += ("--log.ids", "false", "--epoch_limit", 1)
    done = run_script("-c", TRAIN, *words, *more, processes=2)
    assert done.returncode == 0, done.stderr
    for record in records(tmp_path / "run") + records(tmp_path / "run", "epoch"):
        assert record["wait_rank"] == 1
        assert record["wait_share_max"] > record["wait_share"] + 0.2
    assert " on rank 1" in done.stdout
    assert "data-bound" in records(tmp_path / "run", "epoch")[0]["verdict"]
