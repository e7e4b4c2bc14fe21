"""Whole or pruned mp4 files for the decoders that want a container.

A set of h264, hevc or vp9 is stored as fragmented mp4, one fragment per closed group of pictures,
with the ends of the fragments in the index. Only the header and the fragments that hold wanted
frames are read and handed on; the result is a valid, shorter mp4.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from pipelines.source import FrameSource, SampleError


@dataclass
class Container:
    """A playable file and what is wanted of it.

    data: its bytes (uint8). picks: frame numbers inside it, ascending, each once (int32).
    gather: for each frame of the plan its place in picks (int32).
    """

    data: np.ndarray
    picks: np.ndarray
    gather: np.ndarray


class ContainerSource(FrameSource):
    """Reads containers pruned to the groups of pictures that are needed."""

    shares = False

    def _fault(self, sample: int, piece: np.ndarray) -> str | None:
        return None  # the decoders of containers raise in order

    def _read(self, sample: int, frames: np.ndarray) -> Container:  # type: ignore[override]
        wanted, gather = unrepeated(frames)
        self._table(sample, wanted)
        row = self.split.samples[sample]
        if row["first_fragment"] < 0:
            ends, groups, picks = np.array([0, row["size"]]), np.array([0]), wanted
            held = np.arange(row["num_frames"])
        else:
            gop = self.split.gop
            first, count = int(row["first_fragment"]), int(row["num_fragments"])
            ends = self.split.fragments[first : first + count + 1].astype(np.int64)
            groups = np.unique(wanted // gop)
            picks = np.searchsorted(groups, wanted // gop) * gop + wanted % gop
            held = (groups[:, None] * gop + np.arange(gop)).reshape(-1)
            held = held[held < row["num_frames"]]
        return Container(
            data=self._pruned(sample, ends, groups, held),
            picks=picks.astype(np.int32),
            gather=gather,
        )

    def _pruned(
        self, sample: int, ends: np.ndarray, groups: np.ndarray, held: np.ndarray
    ) -> np.ndarray:
        """Header and fragments in one piece; the frames in them are checked by CRC32."""
        starts, stops = ends[groups], ends[groups + 1]
        if ends[0]:
            starts, stops = np.r_[0, starts], np.r_[ends[0], stops]
        if stops[-1] > self.split.samples["size"][sample]:
            raise SampleError(f"{self.place(sample)}: the fragment table points outside the file")
        pieces = self._ranges(sample, starts, stops - starts)
        table = self._table(sample, held)
        offsets, sizes = table["offset"].astype(np.int64), table["size"].astype(np.int64)
        piece = np.searchsorted(starts, offsets, side="right") - 1
        inside = [
            pieces[p][o : o + n]
            for p, o, n in zip(
                piece.tolist(), (offsets - starts[piece]).tolist(), sizes.tolist(), strict=True
            )
        ]
        self._check(sample, held, table["crc32"], inside)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def unrepeated(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers ascending, each once, since a repeated one restarts DALI's decoder, and for
    each of `frames` its place among them; both int32."""
    picks, gather = np.unique(frames, return_inverse=True)
    return picks.astype(np.int32), gather.reshape(-1).astype(np.int32)


def pyav_frames(container: Container, place: str) -> np.ndarray | SampleError:
    """The wanted frames (F, H, W, 3) by PyAV, on one thread."""
    import av

    wanted = container.picks.tolist()
    found: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(container.data.tobytes()), "r") as file:
            stream = file.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(file.decode(stream)):
                if number == wanted[len(found)]:
                    found.append(frame.to_ndarray(format="rgb24"))
                    if len(found) == len(wanted):
                        break
    except (av.error.FFmpegError, IndexError) as error:
        return SampleError(f"{place}: PyAV: {error}")
    if len(found) < len(wanted):
        return SampleError(f"{place}: frame {wanted[len(found)]} is not in the file")
    return np.stack(found)[container.gather]
