"""Kernel times of a step by kind, from the names of the kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

# The first kind with one of its words in a kernel's name, in lower case, is that of the kernel. The
# names are those of cuDNN and cuBLAS, of Inductor's Triton kernels (poi: elementwise, red and per:
# reductions, tem: products and convolutions, then the operations fused in them), and of torch's own
# kernels; on a CPU they are those of operators.
KINDS: tuple[tuple[str, str], ...] = (
    ("layout change", "nchwtonhwc nhwctonchw nchw2nhwc nhwc2nchw"),
    ("elementwise", "triton_poi"),
    ("convolution, forward", "triton_tem_fused_convolution"),
    ("matrix product", "triton_tem triton_mm"),
    ("convolution, weight gradient", "wgrad bwd_weight backward_weight backward_filter"),
    ("convolution, input gradient", "dgrad bwd_data backward_data"),
    ("BN statistics", "batch_norm batchnorm bn_fw bn_bw"),
    ("other reductions", "triton_red triton_per reduce_kernel"),
    ("convolution, both gradients", "convolution_backward convolutionbackward"),
    ("convolution, forward", "fprop convolve conv2d conv3d convolution implicit_gemm"),
    ("optimizer", "multi_tensor fusedsgd fused_sgd _foreach"),
    ("communication", "nccl"),
    ("pooling", "pool"),
    ("matrix product", "gemm nvjet cutlass xmma cublas addmm ::mm ::bmm"),
    ("copy", "memcpy memset copy contiguous ::cat catarray"),
    ("elementwise", "elementwise relu threshold ::add ::mul ::sub ::div ::fill softmax nll_loss"),
)
OTHER = "other"


@dataclass(frozen=True)
class Kernel:
    """Kernels of one name: milliseconds and launches a step."""

    name: str
    ms: float
    calls: float

    @property
    def kind(self) -> str:
        """See `kind_of`."""
        return kind_of(self.name)


def kind_of(name: str) -> str:
    """The kind of a kernel, one of `KINDS` or "other"."""
    lower = name.lower()
    return next((kind for kind, words in KINDS if any(w in lower for w in words.split())), OTHER)


def sums_by_kind(kernels: Iterable[Kernel]) -> list[tuple[str, float, float]]:
    """(kind, milliseconds, share of all kernels), the longest first."""
    sums: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        sums[kernel.kind] += kernel.ms
    total = sum(sums.values()) or 1.0
    return [(k, ms, ms / total) for k, ms in sorted(sums.items(), key=lambda item: -item[1])]
