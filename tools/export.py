#!/usr/bin/env python3
"""Export a network for other programs (.pt2 of torch.export, .onnx, .safetensors), and check it.

python tools/export.py --checkpoint RUN --out model.onnx --fold-bn
python tools/export.py --checkpoint RUN --out model.safetensors
python tools/export.py --checkpoint RUN --out FOLDER --card        (with a README and scores)
python tools/export.py --model i3d_r50 --num-classes 400 --weights FILE.pth --out model.pt2
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import warnings
from pathlib import Path

from dsanet import NetworkConfig, build_model, load_weights
from dsanet.engine.config import plain
from dsanet.engine.evaluation.trained_network import TrainedNetwork, load_trained
from dsanet.engine.html_report.run import read_runs
from dsanet.engine.main import run_command
from dsanet.engine.model_card import write_card
from dsanet.errors import OptionError
from dsanet.exporting import FORMATS, describe, largest_difference, write
from dsanet.inference import ClipShape, fold_batch_norms
from dsanet.metadata import ExportMetadata
from dsanet.recognizer import Recognizer
from dsanet.terminal import print_line
from dsanet.weights import normalisation_of
from shards.annotations import read_classes

TOLERANCE = 1e-3  # of the largest logit; float32 rounding is about 1e-6


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="a run folder, or one of its .pt files")
    source.add_argument("--model", metavar="NAME", help="the name of a network")
    parser.add_argument(
        "--weights", type=Path, help="with --model: file of weights; its normalisation is kept"
    )
    parser.add_argument("--num-classes", type=int, help="with --model: number of classes")
    parser.add_argument(
        "--classes", type=Path, help="with --model: file of names, one a line or JSON"
    )
    parser.add_argument("--segments", type=int, metavar="U", help="with --model: snippets (4)")
    parser.add_argument(
        "--frames", type=int, metavar="T", help="frames per snippet (the run's, or 4)"
    )
    parser.add_argument("--size", type=int, help="height and width of a clip in pixels (224)")
    parser.add_argument("--fold-bn", action="store_true", help="fold batch norms into convolutions")
    names = ", ".join(FORMATS)
    parser.add_argument("--card", action="store_true", help="write a folder with a model card")
    what = f"FILE with one of {names}; with --card a folder"
    parser.add_argument("--out", type=Path, required=True, help=what)
    args = parser.parse_args()
    if args.card and not args.checkpoint:
        parser.error("--card needs --checkpoint")
    if args.card and args.fold_bn:
        parser.error("--card: the folder holds the weights of the network as it is, no --fold-bn")
    if not args.card and args.out.suffix not in FORMATS:
        parser.error(f"--out {args.out}: the name must end in one of {names}")
    if args.model and not (args.num_classes or args.classes):
        parser.error("--model needs --num-classes, or --classes")
    if args.fold_bn and args.out.suffix == ".safetensors":
        parser.error("--fold-bn: a .safetensors file holds the weights of the network as it is")
    return args


def load(args: argparse.Namespace) -> tuple[Recognizer, ClipShape, ExportMetadata]:
    """The network, the shape of the clips for which it is exported, and its metadata."""
    if args.model:
        return load_named(args)
    return load_checkpoint(args, load_trained(args.checkpoint))


def load_checkpoint(
    args: argparse.Namespace, trained: TrainedNetwork
) -> tuple[Recognizer, ClipShape, ExportMetadata]:
    model = trained.model
    assert isinstance(model, Recognizer)
    segments = args.segments or trained.sampling.segments
    shape = ClipShape(segments, args.frames or trained.sampling.frames, args.size or trained.size)
    training = {"sampling": plain(trained.sampling), "shards": trained.shards}
    training |= {"size": trained.size, "samples": trained.samples}
    network, classes = trained.network, trained.classes
    return model, shape, describe(model, trained.name, network, shape, classes, training)


def load_named(args: argparse.Namespace) -> tuple[Recognizer, ClipShape, ExportMetadata]:
    classes = list(read_classes(args.classes)) if args.classes else None
    number = args.num_classes or len(classes or ())
    if classes and len(classes) != number:
        raise OptionError(f"{args.classes}: has {len(classes)} names, --num-classes is {number}")
    segments = args.segments or 4
    options = normalisation_of(args.weights) if args.weights else {}
    model = build_model(args.model, num_classes=number, segments=segments, **options)
    if args.weights:
        print_line(load_weights(model, args.weights))
    shape = ClipShape(segments, args.frames or 4, args.size or 224)
    network = plain(dataclasses.replace(NetworkConfig(), **options))
    return model.eval(), shape, describe(model, args.model, network, shape, classes)


def main() -> int:
    args = parse()
    # Hide the exporter's warnings about unused packages, about itself, and about channels_last
    # weights, which the check below shows to be exported correctly.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
    if args.card:
        return write_folder(args)
    model, shape, metadata = load(args)
    write(fold_batch_norms(model) if args.fold_bn else model, shape, metadata, args.out)
    return check(model, args.out, shape)


def write_folder(args: argparse.Namespace) -> int:
    """Write the network of a checkpoint with a model card; returns the exit code."""
    trained = load_trained(args.checkpoint)
    model, shape, metadata = load_checkpoint(args, trained)
    folder = args.checkpoint if args.checkpoint.is_dir() else args.checkpoint.parent.parent
    run = read_runs([folder], None)[0] if (folder / "config.yaml").is_file() else None
    return check(model, write_card(args.out, trained, shape, metadata, run), shape)


def check(model: Recognizer, path: Path, shape: ClipShape) -> int:
    """Compare a written file with the network; returns the exit code."""
    worst = largest_difference(model, path, shape)
    print_line(f"{path}: clips uint8 (batch, {', '.join(map(str, shape.of(1)[1:]))}) -> logits")
    print_line(
        f"largest difference from eager: {worst:.1e} of the largest logit (batches of 1 and 3)"
    )
    return 0 if worst < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
