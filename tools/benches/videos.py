"""Ten-second videos for the benchmarks: real ones from a folder, or generated ones.

The environment variable DSANET_CLIPS names a folder of real videos (*.mp4). Without it the videos
are generated, with a texture that makes their JPEGs as large as those of real videos.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FOLDER_VARIABLE = "DSANET_CLIPS"
# Folder in which several benchmarks keep the generated videos that they share.
CACHE_VARIABLE = "DSANET_GENERATED_CLIPS"


def kind_of_videos() -> str:
    """ "real" or "generated": what `make_videos` makes here, for the record of a run."""
    return "real" if _real() else "generated"


def _real() -> list[Path]:
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return []
    paths = sorted(Path(folder).glob("*.mp4"))
    if not paths:
        raise FileNotFoundError(f"{folder}: has no *.mp4 file; correct {FOLDER_VARIABLE}")
    return paths


def make_videos(folder: Path, count: int) -> list[Path]:
    """Write `count` H.264 videos of 10 s: the real ones, then mirrored and shifted variants.

    Without real ones, the videos are moving textures that are as hard to encode (see `_texture`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths, real = [], _real()
    for number in range(count):
        path = folder / f"clip{number:03d}.mp4"
        if not path.exists():
            if not real:
                _generate(path, number)
            elif number < len(real):
                shutil.copy(real[number], path)
            else:
                _write_variant(real[number % len(real)], path, number // len(real))
        paths.append(path)
    return paths


def _generate(path: Path, number: int) -> None:
    """Write generated video `number`, or copy it from the shared folder."""
    cache = os.environ.get(CACHE_VARIABLE)
    kept = Path(cache) / f"generated{number:03d}.mp4" if cache else path
    if not kept.exists():
        encode(kept, _panned(number), 340, 256, Fraction(30))
    if kept != path:
        shutil.copy(kept, path)


def _write_variant(source: Path, path: Path, variant: int) -> None:
    """Write another video of the same kind: mirrored (odd variants) and shifted by a few rows."""
    with av.open(str(source)) as container:
        picture = container.streams.video[0]

        def images() -> Iterator[np.ndarray]:
            for frame in container.decode(picture):
                image = frame.to_ndarray(format="rgb24")
                image = image[:, ::-1] if variant % 2 else image
                yield np.roll(image, -variant, axis=0)

        encode(path, images(), picture.width, picture.height, picture.average_rate)


def encode(
    path: Path, images: Iterable[np.ndarray], width: int, height: int, rate: Fraction | None
) -> None:
    """Write RGB images, uint8 (H, W, 3), as an H.264 mp4."""
    partial = path.with_suffix(".part")
    with av.open(str(partial), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    partial.replace(path)


def _panned(seed: int) -> Iterator[np.ndarray]:
    """300 frames, uint8 (256, 340, 3), of a camera that moves over a texture."""
    generator = np.random.default_rng(seed)
    texture = _texture(generator, 512, 680)
    for t in range(300):
        y, x = int(128 + 120 * np.sin(t / 47 + seed)), int(170 + 160 * np.sin(t / 31 + 2 * seed))
        noise = generator.normal(0, 3, (256, 340, 1))
        yield np.clip(texture[y : y + 256, x : x + 340] + noise, 0, 255).astype(np.uint8)


def _texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose spectrum falls like 1 / f^1.4: its JPEGs are as large as those of real clips."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    shape = (3, *frequency.shape)
    spectrum = (generator.normal(size=shape) + 1j * generator.normal(size=shape)) / frequency**1.4
    spectrum[:, 0, 0] = 0
    planes = np.fft.irfft2(spectrum, s=(height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    light, red, blue = planes
    return 120 + 45 * np.stack([light + red / 4, light, light + blue / 4], axis=-1)
