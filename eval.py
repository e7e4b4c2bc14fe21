#!/usr/bin/env python3
"""Evaluate a run: every video of a split once, over clips x crops views.

python eval.py --data SHARDS --checkpoint RUN --clips 8 --crops 3
torchrun --nproc-per-node=8 eval.py ...       (the same scores, sooner)

Writes metrics.json (scores and protocol) and scores.npz (ids, labels, scores) into --out.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some videos could not be read (listed).
"""

import sys

from dsanet.engine.entry import eval_main, guarded

if __name__ == "__main__":
    sys.exit(guarded(eval_main))
