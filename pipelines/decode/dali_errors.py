"""What DALI's error texts mean: a bad video, or a machine that cannot go on.

DALI has one exception for everything, so its text decides. A CUDA error is the machine's only where
it stays: after these every later call fails as well. All others (of cuvid, which answers a bad
stream with CUDA_ERROR_INVALID_VALUE, say) are the fault of a video, found by bisection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dsanet.errors import UserError
from dsanet.limits import find_limit, memory_limits
from pipelines.errors import LoaderError


class DecodeError(Exception):
    """DALI refused a batch; the text is its message."""


@dataclass(frozen=True)
class MachineFault:
    """A failure that no video is to blame for: the texts that show it, and what to do."""

    pattern: re.Pattern[str]
    what: str
    remedy: str


def _pattern(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


MEMORY = "try a smaller batch or loader.prefetch, and look at nvidia-smi for other programs"
# The first that fits counts. Texts of DALI 2.4, nvImageCodec 0.9 and CUDA.
FAULTS = (
    MachineFault(
        _pattern(
            r"can(?:no|')t allocate",
            "out of memory",
            "bad_alloc",
            "allocation failed",
            "allocator (?:failed|failure|error)",
            "cudaErrorMemoryAllocation",
        ),
        "out of memory while decoding; no video is at fault",
        MEMORY,
    ),
    MachineFault(
        _pattern("not supported on this GPU", "not supported by NVDEC"),
        "this GPU cannot decode the videos of this shard set",
        "take loader.decode_on cpu, or write the shards with another codec",
    ),
    MachineFault(
        _pattern(
            r"lib(?:nvcuvid|cuda|nvjpeg)\S* failed",
            "failed to load (?:lib|CUDA)",
            "cannot (?:load|initialize) CUDA",
            "insufficient driver",
            "driver version is insufficient",
            "unsupported display driver",
        ),
        "the driver of the GPU, or a library of it, is missing or too old",
        "update the driver (in a container, start it with NVIDIA_DRIVER_CAPABILITIES=all), "
        "or take loader.decode_on cpu",
    ),
)
CUDA_CODE = re.compile(r"CUDA[^\n#(]*?(?:\w+ \(|#)(\d+)", re.IGNORECASE)
# Codes after which every call fails, the same in the runtime and in the driver: no device or
# context left, uncorrectable ECC and NVLink errors, illegal address (700), launch failure (719) and
# their kin, MPS lost (800 to 813 but 801, "not supported").
STICKY_CODES = frozenset(
    (3, 4, 46, 100, 101, 201, 214, 219, 220, 221, 226, 304, 700, 702, 709, 710)
) | frozenset((*range(714, 722), 800, *range(802, 814)))
STICKY = MachineFault(
    _pattern(
        "device-side assert",
        "illegal memory access",
        "unspecified launch failure",
        "uncorrectable",
        "GPU is lost",
    ),
    "the GPU failed while decoding; no video is at fault",
    "look at nvidia-smi and dmesg, and start the run again, on another GPU if it fails twice",
)


def classify(message: str) -> LoaderError | DecodeError:
    """The error to raise for a message of DALI: LoaderError for a fault of the machine."""
    causes = cause_lines(message)
    for fault in (*FAULTS, STICKY):
        for line in causes:
            if fault.pattern.search(line) or (fault is STICKY and _is_sticky(line)):
                host = fault is FAULTS[0] and re.search("cuda|device|gpu", line, re.I) is None
                limits = f"; {memory_limits()}" if host else ""
                return LoaderError(f"{fault.what}: {_shortened(line)} ({fault.remedy}{limits})")
    for line in causes:
        if (limit := find_limit(RuntimeError(line))) is not None:
            return LoaderError(f"{limit} (DALI: {_shortened(line)})")
    return DecodeError(error_line(message))


def build_error(error: RuntimeError) -> UserError:
    """The error to raise where DALI cannot build a graph; no video is at fault."""
    if isinstance(error, UserError):
        return error
    cause = classify(str(error))
    if isinstance(cause, LoaderError):
        return cause
    return LoaderError(f"DALI cannot build its decoding graph: {cause} (try loader.decode_on cpu)")


def check_machine(faults: dict[int, str], videos: int) -> None:
    """LoaderError where all videos of a batch are refused, each with a CUDA error of its own.

    So a sticky error that the table lacks blames one batch at most.
    """
    reasons = list(faults.values())
    if len(reasons) == videos > 1 and all("CUDA" in reason for reason in reasons):
        raise LoaderError(
            f"a CUDA error for each of the {videos} videos of a batch, so none is at fault: "
            f"{reasons[0]} ({STICKY.remedy})"
        )


def _is_sticky(line: str) -> bool:
    return any(int(code) in STICKY_CODES for code in CUDA_CODE.findall(line))


def error_line(message: str) -> str:
    """The line that names the cause, of a DALI error with its banner and its C++ stack."""
    return _shortened((cause_lines(message) or ["DALI gave no reason"])[0])


def cause_lines(message: str) -> list[str]:
    """The lines of a DALI error that hold its cause, without its banner and its C++ stack."""
    message = message.rpartition("encountered:")[2].partition("Stacktrace")[0] or message
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    causes = [line for line in lines if not line.startswith(("Stacktrace", "[frame", "Error in"))]
    return causes or lines


def _shortened(line: str) -> str:
    """A line without the C++ condition in front of it."""
    return re.sub(r'^(?:\[/\S+\] )?Assert on ".*?" failed:? ', "", line)[:300]
