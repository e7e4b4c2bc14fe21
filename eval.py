#!/usr/bin/env python3
"""Evaluate a run: every video of a split once, over clips x crops views.

python eval.py --data SHARDS --checkpoint RUN --clips 8 --crops 3
torchrun --nproc-per-node=8 eval.py ...       (the same scores, sooner)
python eval.py compare A/scores.npz B/scores.npz       (differences, and the ensemble)

Writes metrics.json (scores and protocol), scores.npz (ids, labels, scores), classes.csv and
confusion.csv into --out. Run it again after an interruption: videos that are scored already are not
scored again.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some videos could not be read (listed);
stopped by a signal with the scores kept: 138 by SIGUSR1 or SIGUSR2, 143 by SIGTERM or Ctrl-C.
"""

import signal

# As in train.py: before any import starts a thread.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))

import sys  # noqa: E402

from dsanet.engine.launch.signals import Signals  # noqa: E402
from dsanet.engine.main import eval_main, run_command  # noqa: E402

if __name__ == "__main__":
    signals = Signals().install()
    sys.exit(run_command(lambda: eval_main(signals)))
