"""Making shards: speed compared with plain ffmpeg, size and PSNR by quality, memory, the index."""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np

from benches.report import Report
from benches.synthetic_index import probe_index, synthetic_split
from benches.timing import alternate
from shards import ShardSettings, Source, build_split
from shards.annotations.video_folder import SUFFIXES
from shards.build.plan import unique_keys
from shards.encode.sample import open_source
from shards.encode.transcode import Transcoder
from shards.format.tars import Window

PARTS = ("speed", "quality", "memory", "index")
LONG = """
import resource, sys
from pathlib import Path
from shards import ShardSettings, Source, build_split
source = Source(Path(sys.argv[1]), 0, "long")
build_split([source], Path(sys.argv[2]), "x", ["x"], ShardSettings(workers=1, max_seconds=7200))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--videos", type=Path, help="folder of videos (default: some are generated)"
    )
    parser.add_argument("--limit", type=int, default=40, help="videos to use (40)")
    parser.add_argument(
        "--workers", type=_numbers, default=[1, 2], metavar="N,N",
        help="numbers of worker processes (1,2)",
    )  # fmt: skip
    parser.add_argument("--codec", default="mjpeg", help="codec of the shards (mjpeg)")
    parser.add_argument(
        "--qualities", type=_numbers, default=[3, 5, 6, 8], metavar="N,N",
        help="qualities to encode with in part quality (3,5,6,8)",
    )  # fmt: skip
    parser.add_argument("--blocks", type=int, default=3, help="timed runs of each contestant (3)")
    parser.add_argument(
        "--parts", type=_parts, default=PARTS, metavar="PART,PART",
        help=f"what to measure, of {','.join(PARTS)} (all)",
    )  # fmt: skip


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parts(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(PARTS):
        raise argparse.ArgumentTypeError(f"unknown part {', '.join(sorted(unknown))}")
    return text.split(",")


def run(args: argparse.Namespace, report: Report) -> None:
    parts: dict[str, Callable[[list[Path], argparse.Namespace, Report, Path], None]] = {
        "speed": _speed,
        "quality": _quality,
        "memory": _memory,
        "index": _index,
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = _videos(args, Path(folder))
        for part in args.parts:
            scratch = Path(folder) / part
            scratch.mkdir()
            report.attempt({"part": part}, parts[part], paths, args, report, scratch)


def _videos(args: argparse.Namespace, folder: Path) -> list[Path]:
    if args.videos:
        paths = [p for p in sorted(args.videos.rglob("*")) if p.suffix.lower() in SUFFIXES]
        return paths[:: max(1, len(paths) // args.limit)][: args.limit]
    return [_make_video(folder / f"made{n}.mp4", 300, n) for n in range(min(args.limit, 12))]


def _make_video(path: Path, count: int, seed: int) -> Path:
    """Write a video of 340 x 256 pixels, 30 fps: a texture that moves, with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((12, 12, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for t in range(count):
            view = picture[t % 200 : t % 200 + 256, t % 220 : t % 220 + 340].astype(np.int16)
            noisy = np.clip(view + rng.integers(-6, 7, view.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode())
    return path


def _sources(paths: list[Path]) -> list[Source]:
    keys = unique_keys([str(path) for path in paths])
    return [Source(path, 0, key) for path, key in zip(paths, keys, strict=True)]


def _ffmpeg(path: Path, out: Path, settings: ShardSettings) -> None:
    """Transcode with the ffmpeg command: the same size, colours and quality, one thread."""
    short = settings.short_side
    scale = f"scale='if(gt(iw,ih),-2,min({short},iw))':'if(gt(iw,ih),min({short},ih),-2)'"
    full = settings.codec == "mjpeg"
    colour = f":out_color_matrix=bt601:out_range={'pc' if full else 'tv'}"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", str(path), "-an"]
    command += ["-vf", f"{scale}{colour},format={'yuvj420p' if full else 'yuv420p'}"]
    command += ["-filter_threads", "1", "-threads", "1"]
    quality = str(settings.effective_quality)
    if full:
        command += ["-c:v", "mjpeg", "-q:v", quality, "-huffman", "optimal"]
    else:
        names = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9"}
        command += ["-c:v", names[settings.codec], "-crf", quality, "-g", str(settings.gop)]
        command += ["-preset", "veryfast"] if settings.codec != "vp9" else ["-b:v", "0"]
    subprocess.run([*command, str(out)], check=True)


def _speed(paths: list[Path], args: argparse.Namespace, report: Report, scratch: Path) -> None:
    if not shutil.which("ffmpeg"):
        report.add(part="speed", skipped="no ffmpeg command")
        return
    for workers in args.workers:
        settings = ShardSettings(codec=args.codec, workers=workers)
        timings = alternate(
            {
                "shards": lambda s=settings: _run_shards(paths, s, scratch / "shards"),
                "ffmpeg": lambda s=settings: _run_ffmpeg(paths, s, scratch / "ffmpeg"),
            },
            blocks=args.blocks,
            calls=1,
        )
        ours, plain = timings["shards"], timings["ffmpeg"]
        report.add(
            part="speed",
            codec=args.codec,
            workers=workers,
            videos=len(paths),
            shards_per_s=len(paths) / ours.median,
            ffmpeg_per_s=len(paths) / plain.median,
            ratio=plain.median / ours.median,
            spread=max(ours.spread, plain.spread),
            shards_cpu_s=_cpu(lambda s=settings: _run_shards(paths, s, scratch / "shards")),
            ffmpeg_cpu_s=_cpu(lambda s=settings: _run_ffmpeg(paths, s, scratch / "ffmpeg")),
        )


def _run_shards(paths: list[Path], settings: ShardSettings, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    build_split(_sources(paths), out, "x", ["x"], settings)


def _run_ffmpeg(paths: list[Path], settings: ShardSettings, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with ThreadPoolExecutor(settings.workers) as pool:
        jobs = enumerate(paths)
        list(pool.map(lambda job: _ffmpeg(job[1], out / f"{job[0]}.mp4", settings), jobs))


def _cpu(call: Callable[[], None]) -> float:
    """CPU seconds of the child processes of a call."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    call()
    return used() - before


def _quality(paths: list[Path], args: argparse.Namespace, report: Report, scratch: Path) -> None:
    for quality in args.qualities:
        settings = ShardSettings(codec=args.codec, quality=quality)
        sizes, errors, frames = [], [], 0
        for source in _sources(paths):
            size, error = _distortion(source, settings, scratch / "one.mp4")
            sizes.append(size)
            errors += error
            frames += len(error)
        report.add(
            part="quality",
            codec=args.codec,
            quality=quality,
            videos=len(paths),
            mean_mb=float(np.mean(sizes)) / 1e6,
            kb_per_frame=sum(sizes) / frames / 1e3,
            psnr_y_db=float(10 * np.log10(255**2 / np.mean(errors))),
            worst_db=float(10 * np.log10(255**2 / np.max(errors))),
        )


def _distortion(source: Source, settings: ShardSettings, path: Path) -> tuple[int, list[float]]:
    """Bytes of the stored video, and the squared error of luma of each stored frame."""
    with open(path, "w+b") as file:
        window = Window(file, 0)
        Transcoder(source, open_source(source), settings).run(window)
        size = window.end
    with av.open(str(path)) as container:
        errors = [
            float(np.mean((_luma(stored).astype(np.float32) - original) ** 2))
            for stored, original in zip(
                container.decode(video=0), _encoder_input(source, settings), strict=True
            )
        ]
    return size, errors


def _encoder_input(source: Source, settings: ShardSettings) -> Iterator[np.ndarray]:
    """Luma of the frames that are encoded: uint8 (H, W)."""
    for frame, repeats in Transcoder(source, open_source(source), settings).encoder_input():
        yield from [_luma(frame)] * repeats


def _luma(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray()[: frame.height]


def _lengths(folder: Path) -> Iterator[tuple[int, Path]]:
    for frames in (300, 3000, 30_000):
        path = folder / f"{frames}.mp4"
        short = _make_video(folder / "short.mp4", 300, 0)
        command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", str(frames // 300 - 1)]
        subprocess.run([*command, "-i", str(short), "-c", "copy", str(path)], check=True)
        yield frames, path


def _memory(paths: list[Path], args: argparse.Namespace, report: Report, scratch: Path) -> None:
    if not shutil.which("ffmpeg"):
        report.add(part="memory", skipped="no ffmpeg command")
        return
    for frames, path in _lengths(scratch):
        command = [sys.executable, "-c", LONG, str(path), str(scratch / f"out{frames}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        report.add(part="memory", frames=frames, worker_peak_mb=float(done.stdout))


def _index(paths: list[Path], args: argparse.Namespace, report: Report, scratch: Path) -> None:
    synthetic_split(scratch, 240_000, 300)
    measured = probe_index(scratch)
    report.add(
        part="index",
        videos=measured["n"],
        frames=measured["n"] * 300,
        open_s=measured["seconds"],
        private_mb=measured["megabytes"],
        lookup_us=measured["lookup"] * 1e6,
    )
