"""Submit the batch scripts of this folder with submitit: single runs and sweeps.

    python slurm/submit.py k400 --data SHARDS --out runs/k400 --partition gpu --nodes 4
    python slurm/submit.py sthv1 --data S --out runs/lr --sweep optim.lr 0.01 0.02 --sweep seed 0 1
    python slurm/submit.py eval --data SHARDS --checkpoint runs/k400 --dry-run

A job runs the same script as `sbatch slurm/k400.sh`, with the script's #SBATCH lines unless an
option below overrides them. submitit writes the batch file, keeps it with the logs, and makes a
sweep one array job. All other options go to train.py or eval.py; those of train.py are checked
before a job is queued. Relative paths start in the repository.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
WRITTEN_BY_SUBMITIT = ("output", "open_mode")
SITE = ("nodes", "cpus_per_task", "time", "partition", "account", "qos", "constraint")


class SubmitError(RuntimeError):
    """An error of the user or of Slurm; `main` prints it as one line and returns its exit code."""

    exit_code = 1


class SubmitUsageError(SubmitError):
    """The command line is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """One run: the arguments after the script's name, and the folder in which its logs are kept."""

    arguments: tuple[str, ...]
    folder: Path

    def command(self, script: Path) -> list[str]:
        """The command that the job executes in the repository."""
        return ["bash", str(script.relative_to(REPOSITORY)), *self.arguments]


def check_text(name: str, value: str) -> None:
    """Check that a value stays on its line in a batch file and on a terminal.

    Raises:
        SubmitUsageError: for a newline, another control character, or bytes that are not UTF-8.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        must = "must be UTF-8 text without control characters"
        raise SubmitUsageError(f"{name} {must}, got {value[:200]!a}")


def launchable(script: Path) -> bool:
    """Whether a script is the batch script of a single job; shard.sh is an array job itself."""
    text = script.read_text(encoding="utf-8")
    return "#SBATCH" in text and "#SBATCH --array" not in text


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options of this program, and the arguments that go to the script."""
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
    runs.add_argument(
        "--out", help="run folder of train.py; for a sweep, the folder that holds its run folders"
    )
    runs.add_argument(
        "--sweep", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"),
        help="a setting and its values; if repeated, all combinations are run",
    )  # fmt: skip
    runs.add_argument(
        "--parallel", type=int, default=256, help="runs of a sweep at the same time (256)"
    )
    runs.add_argument(
        "--dry-run", action="store_true", help="print the batch file and submit nothing"
    )
    site = parser.add_argument_group("Slurm (default: the lines of the script)")
    for name in SITE:
        site.add_argument(f"--{name.replace('_', '-')}")
    site.add_argument("--gpus-per-node", help="number of GPUs, and of tasks, on each node")
    site.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="any other option of sbatch",
    )
    return parser.parse_known_args(argv)


def header(script: Path) -> dict[str, Any]:
    """The #SBATCH lines of a script; a flag without a value is True."""
    lines = re.findall(
        r"^#SBATCH --([a-z-]+)(?:=(\S+))?", script.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {key.replace("-", "_"): value or True for key, value in lines}


def sbatch_options(script: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Options for sbatch: the script's #SBATCH lines, overridden by the command line.

    Raises:
        SubmitUsageError: for an empty value, or one of --sbatch or --gpus-per-node that sbatch
            would misread.
    """
    requested = header(script)
    for name in SITE:
        if (value := getattr(options, name)) == "":
            raise SubmitUsageError(f"--{name.replace('_', '-')} must not be empty")
        if value is not None:
            requested[name] = value
    if (gpus := options.gpus_per_node) is not None:
        if not re.fullmatch(r"(.*:)?[1-9][0-9]*", gpus):
            must = "must be a number, or a type and a number such as h100:8"
            raise SubmitUsageError(f"--gpus-per-node {must}, got {gpus!r}")
        requested |= {"gpus_per_node": gpus, "ntasks_per_node": gpus.split(":")[-1]}
    requested = {key: value for key, value in requested.items() if key not in WRITTEN_BY_SUBMITIT}
    requested |= dict(named_option(text) for text in options.sbatch)
    # submitit always requests a warning signal, by default one that kills a program without a
    # handler. CONT has no effect, for scripts that request none.
    requested.setdefault("signal", "CONT@60")
    return requested


def named_option(text: str) -> tuple[str, str | bool]:
    """The option of sbatch in --sbatch KEY[=VALUE]; submitit quotes the value, not the key."""
    key, equals, value = text.lstrip("-").partition("=")
    if not re.fullmatch("[a-z][a-z0-9_-]*", key):
        raise SubmitUsageError(f"--sbatch must be KEY or KEY=VALUE, got {text!r}")
    key = key.replace("-", "_")
    if key in WRITTEN_BY_SUBMITIT:
        raise SubmitUsageError(f"--sbatch {text}: submitit sets this option; leave it out")
    return key, value if equals else True


def jobs_of(options: argparse.Namespace, rest: Sequence[str]) -> list[Job]:
    """The runs to submit: one, or one for each combination of the sweep's values."""
    if short := [words[0] for words in options.sweep if len(words) == 1]:
        raise SubmitUsageError(
            f"--sweep {short[0]} has no values: write --sweep KEY VALUE [VALUE ...]"
        )
    if options.out == "":
        raise SubmitUsageError("--out must not be empty")
    if options.sweep and options.out is None:
        raise SubmitUsageError("a sweep needs --out, the folder of its runs")
    out = Path(options.out or "runs")
    if not options.sweep:
        return [Job((*(("--out", options.out) if options.out else ()), *rest), out)]
    keys = [words[0] for words in options.sweep]
    jobs = []
    for values in itertools.product(*(words[1:] for words in options.sweep)):
        settings = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        run = out / re.sub(r"[^\w.=+-]", "-", "+".join(settings))
        jobs.append(Job(("--out", str(run), *rest, *(f"--{s}" for s in settings)), out))
    if len({job.arguments[1] for job in jobs}) < len(jobs):
        raise SubmitUsageError("two runs of the sweep would share a folder: name each value once")
    return jobs


def check(script: Path, jobs: Sequence[Job]) -> None:
    """Parse each run's options as train.py will, so that mistakes are found before the job waits.

    Raises:
        SubmitUsageError: when train.py would not accept them.
    """
    call = re.search(r'^train (.*) "\$@"$', script.read_text(encoding="utf-8"), re.MULTILINE)
    if call is None:
        return
    from dsanet.engine.command_line import parse_train
    from dsanet.errors import UserError

    try:
        for job in jobs:
            parse_train([*shlex.split(call[1]), *job.arguments])
    except UserError as error:
        raise SubmitUsageError(str(error)) from error


def parameters(script: Path, options: argparse.Namespace) -> dict[str, Any]:
    """submitit's settings: one process per job, which becomes the batch script."""
    if options.parallel < 1:
        raise SubmitUsageError(f"--parallel must be at least 1, got {options.parallel}")
    return {
        "job_name": f"dsanet-{script.stem}",
        "use_srun": False,
        "stderr_to_stdout": True,
        "wckey": None,
        "array_parallelism": options.parallel,
        "additional_parameters": sbatch_options(script, options),
    }


def show(script: Path, jobs: Sequence[Job], folder: Path, settings: dict[str, Any]) -> None:
    """Print the batch file that submitit would write, and the command of each task."""
    # submitit has no public function for its text.
    from submitit.slurm.slurm import _make_sbatch_string

    words = [sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]
    count = len(jobs) if len(jobs) > 1 else None
    print(_make_sbatch_string(shlex.join(words), folder, map_count=count, **settings))
    for task, job in enumerate(jobs):
        print(f"# task {task}: {shlex.join(job.command(script))}")


def submit(script: Path, jobs: Sequence[Job], folder: Path, settings: dict[str, Any]) -> None:
    """Queue the jobs and print how to follow and stop them.

    Raises:
        SubmitError: when there is no Slurm here, or sbatch refuses the job.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise SubmitError(
            "sbatch and srun are not installed here: run this on a login node, or add --dry-run"
        )
    import submitit

    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**settings)
    try:
        with executor.batch():
            queued = [executor.submit(os.execvp, "bash", job.command(script)) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise SubmitError("sbatch refused the job; see its message above") from error
    for job, handle in zip(jobs, queued, strict=True):
        print(f"job {handle.job_id}: {shlex.join(job.command(script))}")
        print(f"  follow: tail -F {handle.paths.stdout}")
    first = queued[0].job_id.split("_")[0]
    print(f"state: squeue -j {first}   stop: scancel {first}   stop and resume: "
          f"scancel --signal=USR1 {first}")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program: exit code 0, or 1 (failed) or 2 (wrong usage) with one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        for word in argv:
            check_text("each word of the command line", word)
        options, rest = parse(argv)
        os.chdir(REPOSITORY)
        script = REPOSITORY / "slurm" / f"{options.script}.sh"
        jobs = jobs_of(options, rest)
        folder = jobs[0].folder.resolve() / "slurm"
        check_text("the folder of the logs", str(folder))
        settings = parameters(script, options)
        check(script, jobs)
        (show if options.dry_run else submit)(script, jobs, folder, settings)
    except SubmitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
