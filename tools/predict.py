#!/usr/bin/env python3
"""Predict the classes of video files with a trained network.

python tools/predict.py --checkpoint RUN holiday.mp4 party.webm
python tools/predict.py --checkpoint RUN clips/ 'more/*.mp4' https://example.org/film.mp4
python tools/predict.py --checkpoint RUN --window 10 --html film.html film.mp4   (a timeline)
python tools/predict.py --checkpoint RUN --watch inbox/ --csv predictions.csv    (until Ctrl-C)

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files could not be read (listed).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.config import EvalConfig
from dsanet.engine.evaluation.inputs import VideoFile, find_videos, videos_in
from dsanet.engine.evaluation.predict import Prediction, Predictor, Windows
from dsanet.engine.evaluation.prediction_files import to_csv, to_json, to_lines, write
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.html_report.predictions import FrameCollector, render_predictions
from dsanet.engine.launch.distributed import World, use_device
from dsanet.engine.main import run_command
from dsanet.terminal import escape_unencodable_output, print_line

POLL = 2.0  # seconds between two looks into a watched folder


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("videos", nargs="*", metavar="VIDEO", help="file, folder, pattern or address")
    add("--checkpoint", required=True, type=Path, help="run folder or .pt file")
    add("--which", choices=("last", "best"), default="last", help="which checkpoint")
    add("--clips", type=int, default=8, help="clips along each video or window (default: 8)")
    add("--crops", type=int, choices=(1, 3), default=3, help="crops of each clip (3)")
    add("--top", type=int, default=5, help="classes shown (default: 5)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--window", type=float, metavar="SECONDS", help="predict windows of this length")
    add("--step", type=float, metavar="SECONDS", help="from window to window (default: --window)")
    add("--json", type=Path, help="also write the predictions here")
    add("--csv", type=Path, help="also write a row for each class here")
    add("--html", type=Path, help="also write a page with frames, bars and timelines here")
    add("--watch", type=Path, metavar="DIR", help="predict each new video of a folder")
    args = parser.parse_args()
    if not args.videos and not args.watch:
        parser.error("give videos, or a folder with --watch")
    if args.step is not None and args.window is None:
        parser.error("--step needs --window")
    return args


def new_videos(folder: Path) -> Iterator[list[VideoFile]]:
    """Yield videos that have come into a folder and have stopped growing, for ever."""
    if not folder.is_dir():
        raise UsageError(f"--watch {folder}: not a folder")
    done: set[Path] = set()
    sizes: dict[Path, int] = {}
    while True:
        now = {path: path.stat().st_size for path in videos_in(folder) if path not in done}
        ready = [path for path, size in now.items() if size and sizes.get(path) == size]
        done.update(ready)
        sizes = now
        if ready:
            yield [VideoFile(str(path), path) for path in ready]
        else:
            time.sleep(POLL)


class Output:
    """Prints predictions as they come, and keeps the files of all of them up to date."""

    def __init__(self, args: argparse.Namespace, frames: FrameCollector | None) -> None:
        self.args, self.frames = args, frames
        self.predictions: list[Prediction] = []

    def add(self, prediction: Prediction) -> None:
        """Print one prediction."""
        self.predictions.append(prediction)
        for line in to_lines(prediction) if prediction.classes else ():
            print_line(line)
        if prediction.error:
            print_line(f"error: {prediction.video}: {prediction.error}", error=True)

    def write(self) -> None:
        """Write the files that are asked for."""
        if self.args.json:
            write(self.args.json, to_json(self.predictions))
        if self.args.csv:
            write(self.args.csv, to_csv(self.predictions))
        if self.args.html and self.frames:
            title = f"Predictions of {self.frames.trained.name}"
            page = render_predictions(self.predictions, self.frames.frames, title)
            write(self.args.html, page.encode())


def predict_all(predictor: Predictor, videos: list[VideoFile], output: Output) -> None:
    """Predict videos with a bar of progress on a terminal."""
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("videos", total=len(videos))
        for prediction in predictor.predict(videos):
            output.add(prediction)
            bar.advance(task)
    output.write()


def main() -> int:
    args = parse()
    escape_unencodable_output()
    windows = None if args.window is None else Windows(args.window, args.step or args.window)
    trained = load_trained(args.checkpoint, args.which)
    config = EvalConfig(
        data="", checkpoint=str(args.checkpoint), clips=args.clips, crops=args.crops,
        batch=1, compile=False,
    )  # fmt: skip
    frames = FrameCollector(trained) if args.html else None
    world = World(device=use_device(args.device))
    predictor = Predictor(trained, config, world, args.top, windows, frames)
    output = Output(args, frames)
    with TemporaryDirectory(prefix="dsanet-download-") as downloads:
        if args.videos:
            predict_all(predictor, find_videos(args.videos, Path(downloads)), output)
        for videos in new_videos(args.watch) if args.watch else ():
            predict_all(predictor, videos, output)
    return 3 if any(prediction.error for prediction in output.predictions) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
