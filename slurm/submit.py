"""Submit the batch scripts of this folder with submitit: single runs and sweeps.

    python slurm/submit.py k400 --data SHARDS --out runs/k400 --partition gpu --nodes 4
    python slurm/submit.py sthv1 --data S --out runs/lr --sweep optim.lr 0.01 0.02 --sweep seed 0 1
    python slurm/submit.py eval --data SHARDS --checkpoint runs/k400 --dry-run

A job started here runs the same script as `sbatch slurm/k400.sh`, with the script's own #SBATCH
lines where no option below says otherwise; submitit writes the batch file, keeps it with the logs
and makes a sweep one array job. All other options go to train.py or eval.py; those of train.py are
checked before anything is queued. Relative paths start in the repository.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
WRITTEN_BY_SUBMITIT = ("output", "open_mode")


class SubmitError(RuntimeError):
    """Something the user can put right; `main` prints it as one line and returns the code."""

    exit_code = 1


class SubmitUsageError(SubmitError):
    """The command line asks for something that does not exist."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """One run: the words behind the script's name, and where its log folder belongs."""

    arguments: tuple[str, ...]
    folder: Path

    def command(self, script: Path) -> list[str]:
        """What the job executes, from the repository."""
        return ["bash", str(script.relative_to(REPOSITORY)), *self.arguments]


def launchable(script: Path) -> bool:
    """Whether it is a batch script of one job: shard.sh is an array of its own."""
    text = script.read_text()
    return "#SBATCH" in text and "#SBATCH --array" not in text


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Options of the submission, and the words that go to the script."""
    summary, examples = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=examples,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scripts = sorted(p.stem for p in (REPOSITORY / "slurm").glob("*.sh") if launchable(p))
    parser.add_argument("script", choices=scripts, help="the batch script to run")
    runs = parser.add_argument_group("runs")
    runs.add_argument("--out", help="run folder of train.py; of a sweep, the folder of its runs")
    runs.add_argument(
        "--sweep", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"),
        help="a setting and its values; given several times, all combinations",
    )  # fmt: skip
    runs.add_argument("--parallel", type=int, default=256, help="runs of a sweep at one time")
    runs.add_argument("--dry-run", action="store_true", help="print the batch file, submit nothing")
    site = parser.add_argument_group("Slurm (default: what the script says)")
    for name in ("nodes", "cpus-per-task", "time", "partition", "account", "qos", "constraint"):
        site.add_argument(f"--{name}")
    site.add_argument("--gpus-per-node", help="GPUs, and as many tasks, on each node")
    site.add_argument(
        "--sbatch", action="append", default=[], metavar="KEY[=VALUE]", help="any option of sbatch"
    )
    return parser.parse_known_args(argv)


def header(script: Path) -> dict[str, Any]:
    """The #SBATCH lines of a script; a flag without a value is True."""
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?", script.read_text(), re.MULTILINE)
    return {key.replace("-", "_"): value or True for key, value in found}


def sbatch_options(script: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What the batch file asks for: the script's lines under the command line's."""
    wanted = header(script)
    names = ("nodes", "cpus_per_task", "time", "partition", "account", "qos", "constraint")
    wanted |= {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.gpus_per_node is not None:
        wanted |= {"gpus_per_node": options.gpus_per_node}
        wanted |= {"ntasks_per_node": options.gpus_per_node.split(":")[-1]}
    for text in options.sbatch:
        key, _, value = text.lstrip("-").partition("=")
        wanted[key.replace("-", "_")] = value or True
    # submitit always asks for a warning signal, by default one that ends a program without a
    # handler; where the script wants none, CONT is one that nothing minds.
    wanted.setdefault("signal", "CONT@60")
    return {key: value for key, value in wanted.items() if key not in WRITTEN_BY_SUBMITIT}


def jobs_of(options: argparse.Namespace, rest: Sequence[str]) -> list[Job]:
    """The runs to submit: one, or one for each combination of the sweep's values."""
    if short := [words[0] for words in options.sweep if len(words) == 1]:
        raise SubmitUsageError(f"--sweep {short[0]} has no values: --sweep KEY VALUE [VALUE ...]")
    if options.sweep and options.out is None:
        raise SubmitUsageError("a sweep needs --out, the folder of its runs")
    out = Path(options.out or "runs")
    if not options.sweep:
        return [Job((*(("--out", options.out) if options.out else ()), *rest), out)]
    keys = [words[0] for words in options.sweep]
    made = []
    for values in itertools.product(*(words[1:] for words in options.sweep)):
        settings = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        run = out / re.sub(r"[^\w.=+-]", "-", "+".join(settings))
        made.append(Job(("--out", str(run), *rest, *(f"--{s}" for s in settings)), out))
    if len({job.arguments[1] for job in made}) < len(made):
        raise SubmitUsageError("two runs of the sweep would share a folder: give each value once")
    return made


def check(script: Path, jobs: Sequence[Job]) -> None:
    """Let train.py's own parser read each run's options here, not after hours in the queue."""
    call = re.search(r'^train (.*) "\$@"$', script.read_text(), re.MULTILINE)
    if call is None:
        return
    from dsanet.engine import EngineError
    from dsanet.engine.config import parse_train

    try:
        for job in jobs:
            parse_train([*shlex.split(call[1]), *job.arguments])
    except EngineError as error:
        raise SubmitUsageError(str(error)) from error


def parameters(options: argparse.Namespace, wanted: dict[str, Any]) -> dict[str, Any]:
    """submitit's settings: it starts one process a job, which becomes the batch script."""
    return {
        "use_srun": False,
        "stderr_to_stdout": True,
        "wckey": None,
        "array_parallelism": options.parallel,
        "additional_parameters": wanted,
    }


def show(script: Path, jobs: Sequence[Job], folder: Path, settings: dict[str, Any]) -> None:
    """Print the batch file that submitit would write, and what each task would run."""
    # submitit gives its text no public name.
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{sys.executable} -u -m submitit.core._submit {folder}"
    count = len(jobs) if len(jobs) > 1 else None
    print(_make_sbatch_string(command=command, folder=folder, map_count=count, **settings))
    for task, job in enumerate(jobs):
        print(f"# task {task}: {shlex.join(job.command(script))}")


def submit(script: Path, jobs: Sequence[Job], folder: Path, settings: dict[str, Any]) -> None:
    """Queue the jobs and say how to follow them."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise SubmitError("no Slurm here: run this where sbatch and srun are, or add --dry-run")
    import submitit

    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(job_name=f"dsanet-{script.stem}", **settings)
    try:
        with executor.batch():
            queued = [executor.submit(os.execvp, "bash", job.command(script)) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise SubmitError("sbatch refused the job for the reason above") from error
    for job, handle in zip(jobs, queued, strict=True):
        print(f"job {handle.job_id}: {shlex.join(job.command(script))}")
        print(f"  follow: tail -F {handle.paths.stdout}")
    first = queued[0].job_id.split("_")[0]
    print(f"state: squeue -j {first}   stop: scancel {first}   stop and resume: "
          f"scancel --signal=USR1 {first}")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or after one line on standard error 1 (failed) or 2 (wrong usage)."""
    options, rest = parse(argv)
    os.chdir(REPOSITORY)
    script = REPOSITORY / "slurm" / f"{options.script}.sh"
    try:
        jobs = jobs_of(options, rest)
        check(script, jobs)
        folder = jobs[0].folder.resolve() / "slurm"
        settings = parameters(options, sbatch_options(script, options))
        (show if options.dry_run else submit)(script, jobs, folder, settings)
    except SubmitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
