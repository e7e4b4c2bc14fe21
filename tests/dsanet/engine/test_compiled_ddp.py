"""Compiled and distributed over two processes: one graph, which the second start finds cached."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.scripts import run_script

# Each process starts twice. Three layers of 1.4 MB are more than the first bucket of DDP.
START_TWICE = """
import json, os, sys
import torch
from torch._dynamo.utils import counters
from dsanet.engine.config import RuntimeConfig
from dsanet.engine.execution import compiled, distributed
from dsanet.engine.launch.distributed import World

os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(sys.argv[1], os.environ["RANK"])
torch.distributed.init_process_group("gloo")
cpu, world = torch.device("cpu"), World(size=2, rank=int(os.environ["RANK"]))
for start in range(2):
    torch._dynamo.reset()
    counters.clear()
    model = torch.nn.Sequential(*(torch.nn.Linear(600, 600) for _ in range(3)))
    network = distributed(compiled(model, True, cpu, lambda text: None), world, RuntimeConfig())
    network(torch.ones(2, 600)).sum().backward()
    print(json.dumps(counters["aot_autograd"]), flush=True)
torch.distributed.destroy_process_group()
"""


def test_one_graph_that_the_second_start_takes_from_the_cache(tmp_path: Path) -> None:
    done = run_script("-c", START_TWICE, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    counts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(counts) == 4
    assert all(count["total"] == 1 for count in counts)
    assert sum(count.get("autograd_cache_miss", 0) for count in counts) == 2
    assert sum(count.get("autograd_cache_hit", 0) for count in counts) == 2
