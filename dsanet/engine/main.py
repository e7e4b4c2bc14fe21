"""What the entry scripts share: one line for a user's mistake, and the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from dsanet.engine.batching import describe
from dsanet.engine.config import parse_train
from dsanet.engine.evaluation.evaluate import out_folder, parse_eval, run_evaluation
from dsanet.engine.launch.distributed import connect, disconnect, roll_call
from dsanet.engine.launch.requeue import requeue
from dsanet.engine.launch.signals import Interrupted, Signals, Stop, leave_undisturbed
from dsanet.engine.preflight import preflight
from dsanet.engine.report.console import Console
from dsanet.engine.resume import open_folder, restore
from dsanet.engine.run_folder import RunFolder, versions
from dsanet.engine.setup import Training, assemble
from dsanet.engine.trainer import Loop
from dsanet.errors import UserError


def guarded(main: Callable[[], int]) -> int:
    """Run `main`; an error that a user can mend becomes one line and its exit code."""
    try:
        code = main()
    except UserError as error:
        return _complain(str(error), error.exit_code)
    except torch.cuda.OutOfMemoryError:
        return _complain("the GPU's memory is full: lower --batch.per_gpu (in eval.py --batch)", 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except OSError as error:
        return _complain(_reason(error), 1)
    except RuntimeError as error:
        if not _peer_is_gone(error):
            raise
        return _complain("another process of this run has ended: its own error says why", 1)
    disconnect()
    return code


def _reason(error: OSError) -> str:
    """PATH: reason."""
    told = error.strerror or str(error)
    return f"{error.filename}: {told}" if error.filename else told


def _peer_is_gone(error: RuntimeError) -> bool:
    """Whether a collective failed because a process that took part in it is no more."""
    if not dist.is_initialized():
        return False
    told = str(error)
    return isinstance(error, dist.DistBackendError) or "gloo" in told or "by peer" in told


def _complain(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def train_main(signals: Signals, argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; the exit code."""
    config = parse_train(argv)
    runtime = config.runtime
    world = connect(runtime.device, runtime.timeout_minutes, runtime.rendezvous_minutes)
    processes = world.gather_text(world.describe())
    title = f"{config.model} -> {config.out}"
    with Console(RunFolder(config.out).log, title=title, speak=world.main) as console:
        open_folder(config, world, processes, console.say)
        training = assemble(config, world, console, signals)
        try:
            for line in introduction(training, processes):
                console.say(line)
            restore(training)
            if config.runtime.preflight:
                preflight(training)
            stop = Loop(training).run()
            if stop:
                return leave(training, stop)
            console.say(f"done after epoch {training.layout.epochs}; run folder {config.out}")
        finally:
            training.close()
    return 0


def introduction(training: Training, processes: list[str]) -> list[str]:
    """What runs where, on what, and how."""
    config, split = training.config, training.split
    count = sum(p.numel() for p in training.model.parameters())
    found = "  ".join(f"{name} {version}" for name, version in versions().items())
    return [
        f"network: {config.model}, {len(split.classes)} classes, {count:,} parameters, "
        f"{training.precision}",
        f"processes: {roll_call(processes)}",
        f"versions: {found}",
        f"data: {len(split)} videos in {split.name} of {config.data} ({split.codec})",
        *describe(config, training.layout),
    ]


def leave(training: Training, stop: Stop) -> int:
    """After a signal, with everything saved: come back under SLURM if that was meant."""
    leave_undisturbed()  # scontrol inherits it: the requeueing itself has SIGTERM sent to all
    said = "run the same command again to continue"
    if stop == Stop.REQUEUE and training.world.main:
        said = requeue(training.config.runtime.max_requeues).message
    training.console.say(f"stopped by a signal after step {training.step}, saved; {said}")
    # Nobody may exit before the job is requeued: srun would kill the process that asks for it.
    training.world.barrier()
    return stop.exit_code


def eval_main(signals: Signals, argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; the exit code, 3 when videos are missing."""
    config = parse_eval(argv)
    world = connect(config.device, rendezvous_minutes=config.rendezvous_minutes)
    with Console(title=f"evaluating {config.checkpoint}", speak=world.main) as console:
        try:
            summary = run_evaluation(config, world, console, signals)
        except Interrupted as told:
            leave_undisturbed()
            console.say("stopped by a signal, scores kept; run the same command again to continue")
            return told.stop.exit_code
    if world.main:
        scores = "  ".join(f"{k} {100 * summary[k]:.2f}" for k in ("top1", "top5", "map"))
        print(f"{scores}  ({summary['videos']} videos)  -> {out_folder(config)}")
    if missing := summary["missing"]:
        names = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        if world.main:
            _complain(f"{len(missing)} videos could not be read and are not scored: {names}", 3)
        return 3
    return 0
