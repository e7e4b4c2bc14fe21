#!/usr/bin/env python3
"""Train a network on a shard set; the same command continues a run that was interrupted.

python train.py --data SHARDS --model dsa_i3d_r50 --recipe kinetics400 --out RUN
python train.py --data SHARDS --model dsa_i3d_r18 --recipe demo --out RUN --optim.lr 0.02
torchrun --nproc-per-node=8 train.py ...      (one node, one process per GPU)
srun python train.py ...                      (SLURM: see slurm/k400.sh)

Any key of the configuration can be given with dots; `--print_config` shows them all, merged.
Exit codes: 0 done, 1 failed, 2 wrong usage; stopped by a signal with everything saved: 138 by
SIGUSR1 or SIGUSR2, 143 by SIGTERM or Ctrl-C (130: a second Ctrl-C, which waits for nothing).
"""

import signal

# Before any import starts a thread: a thread or child that does not block them would die of the
# signals by which SLURM announces the end of a job.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))

import sys  # noqa: E402

from dsanet.engine.launch.signals import Signals  # noqa: E402
from dsanet.engine.main import run_command, train_main  # noqa: E402

if __name__ == "__main__":
    signals = Signals().install()
    sys.exit(run_command(lambda: train_main(signals)))
