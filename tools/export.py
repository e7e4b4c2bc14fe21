#!/usr/bin/env python3
"""Export a network for other programs, as torch.export (.pt2) or ONNX (.onnx), and check the file.

python tools/export.py --checkpoint RUN --out model.onnx --fold-bn
python tools/export.py --model i3d_r50 --num-classes 400 --weights FILE.pth --out model.pt2
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dsanet import ModelError, build_model, load_weights
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.main import run_command
from dsanet.inference import ClipShape, export_onnx, export_program, fold_batch_norms
from dsanet.recognizer import Recognizer
from dsanet.terminal import print_line

TOLERANCE = 1e-3  # of the largest logit; float32 rounding is about 1e-6


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="a run folder, or one of its .pt files")
    source.add_argument("--model", metavar="NAME", help="the name of a network")
    parser.add_argument("--weights", type=Path, help="with --model: file of weights")
    parser.add_argument("--num-classes", type=int, help="with --model: number of classes")
    parser.add_argument("--segments", type=int, metavar="U", help="with --model: snippets (4)")
    parser.add_argument(
        "--frames", type=int, metavar="T", help="frames per snippet (the run's, or 4)"
    )
    parser.add_argument("--size", type=int, help="height and width of a clip in pixels (224)")
    parser.add_argument("--fold-bn", action="store_true", help="fold batch norms into convolutions")
    parser.add_argument("--out", type=Path, required=True, help="FILE.onnx or FILE.pt2")
    args = parser.parse_args()
    if args.out.suffix not in (".onnx", ".pt2"):
        parser.error(f"--out {args.out}: the name must end in .onnx or .pt2")
    if args.model and not args.num_classes:
        parser.error("--model needs --num-classes")
    return args


def load(args: argparse.Namespace) -> tuple[Recognizer, ClipShape]:
    """The network, and the shape of the clips for which it is exported."""
    if args.model:
        segments = args.segments or 4
        model = build_model(args.model, num_classes=args.num_classes, segments=segments)
        if args.weights:
            print_line(load_weights(model, args.weights))
        return model.eval(), ClipShape(segments, args.frames or 4, args.size or 224)
    trained = load_trained(args.checkpoint)
    assert isinstance(trained.model, Recognizer)
    segments = args.segments or trained.sampling.segments
    frames = args.frames or trained.sampling.frames
    return trained.model, ClipShape(segments, frames, args.size or trained.size)


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Load the file with the library that will run it, as a function of clips."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("checking ONNX needs onnxruntime: pip install 'dsanet[onnx]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


def difference(model: Recognizer, run: Callable[[Tensor], Tensor], shape: ClipShape) -> float:
    """Largest difference from eager over batches of 1 and 3, relative to the largest logit."""
    worst = 0.0
    for batch in (1, 3):
        clips = torch.randint(0, 256, shape.of(batch), dtype=torch.uint8)
        with torch.no_grad():
            expected = model(clips)
            worst = max(worst, ((run(clips) - expected).abs().max() / expected.abs().max()).item())
    return worst


def write(model: Recognizer, shape: ClipShape, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    program = export_program(model, shape)
    if path.suffix == ".onnx":
        export_onnx(program, path)
    else:
        torch.export.save(program, path)


def main() -> int:
    args = parse()
    # Hide the exporter's warnings about unused packages, about itself, and about channels_last
    # weights, which the check below shows to be exported correctly.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
    model, shape = load(args)
    write(fold_batch_norms(model) if args.fold_bn else model, shape, args.out)
    worst = difference(model, runner(args.out), shape)
    print_line(f"{args.out}: clips uint8 (batch, {', '.join(map(str, shape.of(1)[1:]))}) -> logits")
    print_line(
        f"largest difference from eager: {worst:.1e} of the largest logit (batches of 1 and 3)"
    )
    return 0 if worst < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
