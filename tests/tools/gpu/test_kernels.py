"""Kernels by kind, on names as cuDNN, cuBLAS, Inductor and torch give them."""

from __future__ import annotations

import pytest
from gpu.goals import slowest_kind
from gpu.job import Sizes
from gpu.kernels import Kernel, kind_of, sums_by_kind
from gpu.step import limits

NAMES = {
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64":
        "convolution, forward",
    "sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64":
        "convolution, input gradient",
    "sm80_xmma_wgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32_nhwckrsc_nhwc":
        "convolution, weight gradient",
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad_optimized_bf16_128x128>":
        "convolution, input gradient",
    "void cudnn::cnn::conv2d_grouped_direct_kernel<false, true>": "convolution, forward",
    "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT": "matrix product",
    "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_nn": "matrix product",
    "triton_red_fused__native_batch_norm_legit_functional_3": "BN statistics",
    "triton_per_fused_native_batch_norm_backward_threshold_backward_17": "BN statistics",
    "triton_red_fused_mean_12": "other reductions",
    "triton_poi_fused__native_batch_norm_legit_functional_convolution_relu_5": "elementwise",
    "triton_poi_fused_native_batch_norm_backward_9": "elementwise",
    "triton_tem_fused_mm_4": "matrix product",
    "triton_tem_fused_convolution_7": "convolution, forward",
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<"
    "at::native::(anonymous namespace)::FusedSgdMathFunctor<float, 3>>": "optimizer",
    "void cudnn::engines_precompiled::nchwToNhwcKernel<__half, __half, float>": "layout change",
    "void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float>": "BN statistics",
    "void at::native::max_pool_forward_nhwc<c10::BFloat16, int>": "pooling",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>":
        "elementwise",
    "Memcpy DtoD (Device -> Device)": "copy",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL": "communication",
    "a kernel that nobody knows": "other",
}  # fmt: skip


@pytest.mark.parametrize("name", list(NAMES))
def test_kind_of_a_kernel(name: str) -> None:
    assert kind_of(name) == NAMES[name]


def test_sums_are_complete_and_start_with_the_longest() -> None:
    kernels = [
        Kernel("triton_poi_fused_add_relu_1", 3.0, 16),
        Kernel("sm90_xmma_fprop_implicit_gemm_bf16", 5.0, 20),
        Kernel("triton_poi_fused_relu_2", 4.0, 8),
    ]
    sums = sums_by_kind(kernels)
    assert [(kind, ms) for kind, ms, _ in sums] == [
        ("elementwise", 7.0), ("convolution, forward", 5.0),
    ]  # fmt: skip
    assert sum(share for _, _, share in sums) == pytest.approx(1)
    assert sums_by_kind([]) == []


def test_sums_beside_what_the_device_could_reach() -> None:
    """The figures of docs/models.md: 83.8 G multiply-adds and 178 M BN outputs a video."""
    kernels = [Kernel("nvjet_x", 20.0, 1), Kernel("sm90_xmma_dgrad", 10.0, 1),
               Kernel("triton_red_fused__native_batch_norm_legit", 30.0, 1),
               Kernel("triton_poi_fused_relu", 10.0, 1)]  # fmt: skip
    products, passes = limits(Sizes(), 32, kernels, {"tflops": 800.0, "gb_per_s": 3000.0})
    assert products["ms"] == 30
    assert products["tflops"] == pytest.approx(6 * 83.8e9 * 32 / 0.030 / 1e12, rel=0.01)
    assert products["share_of_best"] == pytest.approx(products["tflops"] / 800)
    assert passes["ms"] == 40
    assert passes["gb_of_one"] == pytest.approx(0.356 * 32, rel=0.01)
    assert passes["passes_at_best"] == pytest.approx(0.040 * 3000 / (0.356 * 32), rel=0.01)
    assert limits(Sizes(), 32, kernels, {})[0]["share_of_best"] is None


def test_the_advice_names_the_longest_kind_and_the_best_variant() -> None:
    sums = [{"what": "sum", "kind": "BN statistics", "ms": 50.0, "share": 0.5},
            {"what": "sum", "kind": "convolution, forward", "ms": 20.0, "share": 0.2}]  # fmt: skip
    variants = [{"what": "fp16", "over_baseline": -0.05}, {"what": "EMA", "over_baseline": 0.1},
                {"what": "TSN, without DSA", "over_baseline": -0.3}]  # fmt: skip
    text = slowest_kind({"step": sums, "variants": variants})
    assert "50%" in text
    assert "BN statistics" in text
    assert "fp16 takes 5% less" in text
    assert "part step" in slowest_kind({})
