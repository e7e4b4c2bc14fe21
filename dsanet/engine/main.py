"""The commands behind train.py and eval.py, with one line for each error and the exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from dsanet.engine.batching import describe
from dsanet.engine.command_line import parse_train
from dsanet.engine.environment import versions
from dsanet.engine.evaluation.compare import compare_main
from dsanet.engine.evaluation.config import out_folder, parse_eval
from dsanet.engine.evaluation.evaluate import run_evaluation
from dsanet.engine.folder_lock import locked
from dsanet.engine.launch.distributed import connect, count_processes, disconnect
from dsanet.engine.launch.requeue import requeue
from dsanet.engine.launch.signals import Interrupted, Signals, Stop, ignore_sigterm
from dsanet.engine.preflight import preflight
from dsanet.engine.report.console import Console, score_lines
from dsanet.engine.report.output import lasting_output
from dsanet.engine.report.profiler import memory_on_failure, record_memory_history
from dsanet.engine.resume import open_folder, restore
from dsanet.engine.run_folder import RunFolder
from dsanet.engine.setup import Training, build_training
from dsanet.engine.trainer import Trainer
from dsanet.engine.tuning.tune import is_wanted, tune_loader, use_earlier_result
from dsanet.errors import UserError
from dsanet.limits import describe_failure
from dsanet.terminal import print_line
from pipelines.hang_limits import command_may_end, ends_soon


def run_command(main: Callable[[], int]) -> int:
    """Run a command; print an error that a user can fix as one line, and return the exit code.

    The command goes on where its output does not, as with `| head`.
    """
    with lasting_output(), command_may_end():
        try:
            return _run(main)
        finally:
            if ends_soon():  # a thread hangs: the interpreter, or a library, would wait for it
                _exit_at_once()


def _exit_at_once() -> None:
    if sys.exc_info()[0]:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _run(main: Callable[[], int]) -> int:
    try:
        code = main()
    except UserError as error:
        return _print_error(str(error), error.exit_code)
    except torch.cuda.OutOfMemoryError:
        return _print_error("out of GPU memory: lower --batch.per_gpu (in eval.py --batch)", 1)
    except KeyboardInterrupt:
        return _print_error("interrupted", 130)
    except (OSError, MemoryError, RuntimeError) as error:
        reason = describe_failure(error)
        if isinstance(error, RuntimeError) and _peer_has_ended(error):
            reason = "another process of this run has ended; see its own error"
        if reason is None:
            raise
        return _print_error(reason, 1)
    disconnect()
    return code


def _peer_has_ended(error: RuntimeError) -> bool:
    """Whether a collective failed because another process that takes part in it has ended."""
    if not dist.is_initialized():
        return False
    text = str(error)
    return isinstance(error, dist.DistBackendError) or "gloo" in text or "by peer" in text


def _print_error(message: str, code: int) -> int:
    print_line(f"error: {message.strip()}", error=True)
    return code


def train_main(signals: Signals, argv: Sequence[str] | None = None) -> int:
    """The command train.py; returns its exit code."""
    config = parse_train(argv)
    runtime = config.runtime
    world = connect(runtime.device, runtime.timeout_minutes, runtime.rendezvous_minutes)
    processes = world.gather_text(world.describe())
    title = f"{config.model} -> {config.out}"
    folder = RunFolder(config.out)
    with (
        Console(folder.log, title=title, enabled=world.main) as console,
        locked(folder.path, world, console.print) as lock,
        console.errors_logged(),
    ):
        open_folder(config, world, processes, console.print)
        training = build_training(config, world, console, signals)
        training.lock = lock
        try:
            for line in summary_lines(training, processes):
                console.print(line)
            restore(training)
            if stop := train(training):
                return end_early(training, stop)
            console.print(
                f"done after epoch {training.state.layout.epochs}; run folder {config.out}"
            )
        finally:
            training.close()
    return 0


def train(training: Training) -> Stop:
    """Check a run and train it; returns why it ended early, or Stop.NO."""
    config, world, console = training.config, training.world, training.console
    if config.profile_memory:
        record_memory_history(world.device)
    report = print_line if not world.main else console.print
    with memory_on_failure(training.folder.profile, world.device, world.rank, report):
        is_tuned = use_earlier_result(training)
        if config.runtime.preflight:
            preflight(training)
        is_over = training.state.samples >= training.state.layout.total
        if is_wanted(training) and not (is_tuned or is_over):
            tune_loader(training)
        return Trainer(training).run()


def summary_lines(training: Training, processes: list[str]) -> list[str]:
    """Network, processes, versions, data and batch of a run, for the top of its log."""
    config, split = training.config, training.state.split
    count = sum(p.numel() for p in training.state.model.parameters())
    packages = "  ".join(f"{name} {version}" for name, version in versions().items())
    return [
        f"network: {config.model}, {len(split.classes)} classes, {count:,} parameters, "
        f"{training.state.precision}",
        f"processes: {count_processes(processes)}",
        f"versions: {packages}",
        f"data: {len(split)} videos in {split.name} of {config.data} ({split.codec})",
        *describe(config, training.state.layout),
    ]


def end_early(training: Training, stop: Stop) -> int:
    """After a signal and a save: requeue the job if SLURM is about to end it; the exit code."""
    ignore_sigterm()  # scontrol inherits it: the requeueing itself has SIGTERM sent to all
    next_step = "run the same command again to continue"
    if stop == Stop.REQUEUE and training.world.main:
        next_step = requeue(training.config.runtime.max_requeues).message
    step = training.state.step
    training.console.print(f"stopped by a signal after step {step}, saved; {next_step}")
    # No process may exit before the job is requeued: srun would kill the one that requeues it.
    training.world.barrier()
    return stop.exit_code


def eval_main(signals: Signals, argv: Sequence[str] | None = None) -> int:
    """The command eval.py; returns its exit code, 3 when videos are missing."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["compare"]:
        return compare_main(words[1:])
    config = parse_eval(words)
    world = connect(config.device, rendezvous_minutes=config.rendezvous_minutes)
    with Console(title=f"evaluating {config.checkpoint}", enabled=world.main) as console:
        try:
            metrics = run_evaluation(config, world, console, signals)
        except Interrupted as interruption:
            ignore_sigterm()
            console.print(
                "stopped by a signal, scores so far saved; run the same command again to continue"
            )
            return interruption.stop.exit_code
    if world.main:
        for line in score_lines(metrics, str(out_folder(config))):
            print_line(line)
    if missing := metrics["missing"]:
        names = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        if world.main:
            for reason in list(metrics["missing_reasons"].values())[:10]:
                print_line(f"warning: not scored: {reason}", error=True)
            message = f"{len(missing)} unreadable videos are not scored: {names}"
            _print_error(f"{message}; all reasons are in {out_folder(config)}/metrics.json", 3)
        return 3
    return 0
