"""Whether the decoder of the GPU can be in use.

nvImageCodec loads libnvjpeg at run time. Where there is none, DALI's `mixed` decoder decodes on the
CPU and reports nothing, so the libraries that the process has loaded are looked up.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.decode.graph import GraphSpec

# Input of the graph -> the library of the GPU's decoder, and where it comes from.
LIBRARIES = {
    "jpeg": ("libnvjpeg", "the package nvidia-nvjpeg, or CUDA's lib64 on LD_LIBRARY_PATH"),
    "mp4": ("libnvcuvid", "the driver; in a container NVIDIA_DRIVER_CAPABILITIES must hold video"),
}


def missing_library(spec: GraphSpec, maps: Path = Path("/proc/self/maps")) -> str | None:
    """Why the GPU cannot have decoded the batches of a graph so far, or None.

    spec: of a graph that has decoded at least one batch.
    maps: the memory mappings of this process, as Linux lists them.
    """
    if not spec.mixed:
        return None
    name, source = LIBRARIES[spec.input]
    if re.search(rf"/{name}\.so", maps.read_text(encoding="utf-8", errors="replace")):
        return None
    return f"{name} is not loaded, so videos are not decoded on the GPU; it comes from {source}"
