"""tools/bench.py model: all its rows, at a size that takes seconds."""

from __future__ import annotations

import argparse

import pytest
import torch
from benches import kernels, model
from benches.report import Report
from torch.nn import functional as F


def run(*words: str) -> list[dict]:
    parser = argparse.ArgumentParser()
    model.add_arguments(parser)
    report = Report("model")
    model.run(parser.parse_args(words), report)
    return report.rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU run compiles for minutes")
def test_rows_on_a_cpu():
    rows = run("--width", "8", "--size", "32", "--batch", "1", "--blocks", "2", "--calls", "1")
    for what in ("train", "8x3"):
        measured = {(r["network"], r["how"]): r for r in rows if r["what"] == what and r["ms"]}
        expected = {
            ("dsa_i3d_r18", "release fp32 eager"),
            ("dsa_i3d_r18", "release bf16 eager"),
            ("dsa_i3d_r18", "folded fp32 eager"),
            ("dsa_i3d_r18", "folded bf16 eager"),
            ("tsn_i3d_r18", "folded bf16 eager"),
            ("v4d_i3d_r18", "folded bf16 eager"),
        }
        assert set(measured) == expected
        assert measured["dsa_i3d_r18", "release fp32 eager"]["ratio"] == 1
        for (network, how), row in measured.items():
            assert row["videos_s"] == pytest.approx(1e3 / row["ms"])
            beside = how == "folded bf16 eager" and not network.startswith("tsn")
            assert row["over_tsn"].endswith("%") == beside
    waiting = [r for r in rows if r["ms"] is None]
    assert {r["videos"] for r in waiting} >= {"32 x U4 T4 224px, GPU", "32 x U4 T8 224px, GPU"}


@pytest.mark.parametrize("form", list(kernels.FORMS))
def test_kernel_forms_are_one_convolution(form):
    x = torch.randn(2 * kernels.FRAMES, 6, 5, 7).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 6, 3, 3, 3)
    volume = x.unflatten(0, (2, kernels.FRAMES)).transpose(1, 2)
    expected = F.conv3d(volume, weight, padding=1).transpose(1, 2).flatten(0, 1)
    out = kernels.FORMS[form](x, weight)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert out.is_contiguous(memory_format=torch.channels_last)
