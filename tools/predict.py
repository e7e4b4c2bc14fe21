#!/usr/bin/env python3
"""Predict the classes of video files with a trained network.

python tools/predict.py --checkpoint RUN holiday.mp4 party.webm
python tools/predict.py --checkpoint RUN --top 3 --json predictions.json *.mp4

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files could not be read (listed).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from dsanet.engine.evaluation.config import EvalConfig
from dsanet.engine.evaluation.predict import Prediction, predict
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.launch.distributed import World, use_device
from dsanet.engine.main import run_command
from dsanet.terminal import print_line
from shards.format.files import write_atomic


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--checkpoint", required=True, type=Path, help="run folder or .pt file")
    parser.add_argument(
        "--which", choices=("last", "best"), default="last", help="which checkpoint"
    )
    parser.add_argument("--clips", type=int, default=8, help="clips along each video (default: 8)")
    parser.add_argument(
        "--crops", type=int, choices=(1, 3), default=3, help="crops of each clip (3)"
    )
    parser.add_argument("--top", type=int, default=5, help="classes shown (default: 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--json", type=Path, help="also write the predictions here")
    return parser.parse_args()


def show(prediction: Prediction) -> None:
    if prediction.error:
        print_line(f"error: {prediction.video}: {prediction.error}", error=True)
        return
    print_line(prediction.video)
    for name, probability in prediction.classes:
        print_line(f"  {probability:6.1%}  {name}")


def main() -> int:
    args = parse()
    trained = load_trained(args.checkpoint, args.which)
    config = EvalConfig(
        data="", checkpoint=str(args.checkpoint), clips=args.clips, crops=args.crops,
        batch=1, compile=False,
    )  # fmt: skip
    world = World(device=use_device(args.device))
    predictions = predict(args.videos, trained, config, world, args.top)
    for prediction in predictions:
        show(prediction)
    if args.json:
        content = [dataclasses.asdict(p) | {"video": str(p.video)} for p in predictions]
        write_atomic(args.json, (json.dumps(content, indent=1) + "\n").encode())
    return 3 if any(p.error for p in predictions) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
