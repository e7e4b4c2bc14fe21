"""Reading files of weights: as people have them, damaged, and made to do harm."""

from __future__ import annotations

import argparse
import collections
import os
import struct
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dsanet import ModelError, build_model, load_weights
from dsanet.weights.files import read_file

TINY = {"num_classes": 5, "width": 8, "blocks": (1, 1, 1, 1)}


@pytest.fixture
def state():
    return build_model("i3d_r18", **TINY).state_dict()


class HistoryBuffer:
    """Pickles as mmengine's: by name, with NumPy arrays and bound functions of its class."""

    def __init__(self):
        self._log_history, self._count_history = np.ones(3), np.arange(3)
        self._statistics_methods = {"min": HistoryBuffer.min}
        raise_if_loaded()

    def min(self):
        raise AssertionError("called")

    def __setstate__(self, state):
        raise AssertionError("called")


def raise_if_loaded() -> None:
    """Creating a HistoryBuffer while a file is read would fail here."""
    assert not LOADING


LOADING: list[bool] = []


class Settings(dict):
    """A dict of another package, as omegaconf's."""


class Steps(list):
    """A list of another package."""


@pytest.fixture
def mmengine(monkeypatch):
    """HistoryBuffer under the name that mmengine gives it."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", types.ModuleType("mmengine.logging"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    monkeypatch.setattr(HistoryBuffer.min, "__module__", module.__name__)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_checkpoint_of_an_mmengine_runner(zipped, mmengine, save, state, monkeypatch):
    """Its log is not read; no class or function that it names is called, or even imported."""
    content = {
        "meta": {"epoch": 3, "seed": np.int64(5)},
        "message_hub": {"log_scalars": collections.OrderedDict(loss=HistoryBuffer())},
        "optimizer": {"param_groups": [{"lr": np.float64(0.1)}]},
        "arguments": argparse.Namespace(lr=0.1),
        "settings": Settings(a=Settings(b=1)),
        "steps": Steps([1, 2]),
        "counts": collections.defaultdict(list, a=[1]),
        "state_dict": state,
    }
    path = save(content, _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(sys.modules[__name__], "LOADING", [True])
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.delitem(sys.modules, name)
    report = load_weights(build_model("i3d_r18", **TINY), path)
    assert (report.layout, report.missing, report.skipped) == ("dsanet", (), ())
    assert "mmengine.logging.history_buffer.HistoryBuffer" in report.ignored
    assert "ignored in the file: objects of" in str(report)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.", "model.module."])
def test_keys_and_prefixes_of_wrappers(key, prefix, save, state):
    content = {"epoch": 1, key: {prefix + name: tensor for name, tensor in state.items()}}
    report = load_weights(build_model("i3d_r18", **TINY), save(content))
    assert (report.missing, report.skipped) == ((), ())


def test_lightning_leaves_out_what_is_not_the_network(save, state):
    tensors = {f"model.{name}": tensor for name, tensor in state.items()}
    tensors |= {"train_acc.tp": torch.zeros(5), "loss.weight": torch.ones(5)}
    content = {"pytorch-lightning_version": "2.5.0", "state_dict": tensors}
    report = load_weights(build_model("i3d_r18", **TINY), save(content))
    assert report.skipped == ("train_acc.tp", "loss.weight")
    assert report.missing == ()


def test_averaged_weights_of_timm_are_preferred(save, state):
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    model = build_model("i3d_r18", **TINY)
    load_weights(model, save({"state_dict": state, "state_dict_ema": averaged}))
    torch.testing.assert_close(model.fc.bias, averaged["fc.bias"])


def test_safetensors(tmp_path, state):
    safetensors = pytest.importorskip("safetensors.torch")
    for name in ("weights.safetensors", "resnet18.a1_in1k", "hub/model.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        safetensors.save_file({n: t.contiguous() for n, t in state.items()}, path)
        model = build_model("i3d_r18", **TINY)
        given = path.parent if path.name == "model.safetensors" else path
        assert load_weights(model, given).path == path
        for loaded, tensor in zip(model.state_dict().values(), state.values(), strict=True):
            torch.testing.assert_close(loaded, tensor, rtol=0, atol=0)


def test_a_name_of_timm_is_found_in_the_cache_of_the_hub(tmp_path, save, state, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    model = build_model("i3d_r18", **TINY)
    with pytest.raises(ModelError, match=r"run: hf download timm/resnet50\.a1_in1k"):
        load_weights(model, "resnet50.a1_in1k")
    name = "hub/models--timm--resnet50.a1_in1k/snapshots/0123/model.safetensors"
    path = save(state, name)  # its content tells the format, not its name
    assert load_weights(model, "resnet50.a1_in1k").path == path
    assert load_weights(model, "timm/resnet50.a1_in1k").path == path


def test_the_normalisation_beside_timms_weights_is_required(tmp_path, save):
    image = {f"{n}": t for n, t in build_model("tsm_r50", **TINY).trunk.state_dict().items()}
    image = {n.replace("shortcut.conv", "downsample.0").replace("shortcut.bn", "downsample.1"): t
             for n, t in image.items()}  # fmt: skip
    path = save(image, "resnet50/pytorch_model.bin")
    config = path.with_name("config.json")
    config.write_text(
        '{"pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}'
    )
    load_weights(build_model("tsm_r50", **TINY), path.parent)
    config.write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}')
    with pytest.raises(ModelError, match=r"mean \[127\.5, 127\.5, 127\.5\]"):
        load_weights(build_model("tsm_r50", **TINY), path.parent)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def compressed(path: Path) -> None:
    """A zip of 64 KB that needs 64 MB of memory; gigabytes are made in the same way."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 26))


def overlapping(path: Path) -> None:
    """An archive whose 300 members are all the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
        [info] = archive.infolist()
        for number in range(300):
            copy = zipfile.ZipInfo(f"archive/data/{number}")
            copy.header_offset, copy.file_size = info.header_offset, info.file_size
            copy.compress_size, copy.CRC = info.compress_size, info.CRC
            archive.filelist.append(copy)


def too_large(path: Path) -> None:
    path.touch()
    os.truncate(path, 9 << 30)


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html></html>")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pipe, "not a regular file"),
        (compressed, "data.pkl in it is compressed"),
        (overlapping, "claims 315621376 bytes"),
        (too_large, "has 9.0 GiB"),
        (pointer, "git lfs pull"),
        (page, "is a web page"),
    ],
)
def test_files_that_would_block_or_fill_the_memory(make, message, tmp_path):
    make(tmp_path / "weights.pth")
    start = time.monotonic()
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(build_model("i3d_r18", **TINY), tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 10


def test_a_damaged_safetensors_file_is_one_line(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "weights").write_bytes(struct.pack("<Q", 50) + b"{" + b"[" * 60)
    with pytest.raises(ModelError, match="cannot be read as weights") as caught:
        read_file(tmp_path / "weights")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_refused(device):
    with pytest.raises(ModelError, match="not a regular file"):
        read_file(Path(device))


def quantized(t):
    return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "no content"),
        (lambda t: t.to(torch.complex64), "type complex64"),
        (lambda t: t.to(torch.int8), "type int8"),
        (lambda t: t * torch.nan, "not finite"),
        (lambda t: t[:1].fill_(torch.inf).expand_as(t), "not finite"),
        (lambda t: torch.zeros(()), r"shape \(\)"),
        (lambda t: torch.zeros(()).expand(10**6, 10**6), r"shape \(1000000, 1000000\)"),
        (lambda t: torch.zeros(5, 0), r"shape \(5, 0\)"),
        (quantized, "quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights(change, message, save, state):
    """Each is one line that names the tensor, and the network is as before."""
    model = build_model("i3d_r18", **TINY)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state["fc.weight"] = change(state["fc.weight"].clone())
    with pytest.raises(ModelError, match=rf"fc\.weight .*{message}") as caught:
        load_weights(model, save(state))
    assert "\n" not in str(caught.value)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_negative_variance_is_refused(save, state):
    state["trunk.bn1.running_var"][3] = -1
    with pytest.raises(ModelError, match=r"trunk\.bn1\.running_var holds a negative variance"):
        load_weights(build_model("i3d_r18", **TINY), save(state))


def test_names_are_printed_as_one_line(save, state):
    state["trunk.\x1b[31m\nerror: all is lost" + "x" * 500] = torch.zeros(1)
    with pytest.raises(ModelError, match=r"it has trunk\.\\x1b\[31m\\nerror") as caught:
        load_weights(build_model("i3d_r18", **TINY), save(state))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_storage_larger_than_its_record_is_refused(tmp_path, save):
    """A pickle that claims 2**28 numbers of a record with 4."""
    source = zipfile.ZipFile(save({"a": torch.arange(4.0)}))
    with zipfile.ZipFile(tmp_path / "claim.pth", "w") as archive:
        for member in source.infolist():
            data = source.read(member)
            if member.filename.endswith("data.pkl"):
                claimed = data.replace(b"K\x04tq", b"J\x00\x00\x00\x10tq")
                assert claimed != data
                data = claimed.replace(b"K\x04\x85", b"J\x00\x00\x00\x10\x85")
            archive.writestr(member.filename, data)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_file(tmp_path / "claim.pth")


class Many:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return getattr(sys.modules[__name__], f"made_{self.number}"), ()


def test_the_number_of_foreign_kinds_is_limited(save, monkeypatch):
    for number in range(150):
        function = types.FunctionType(raise_if_loaded.__code__, globals(), f"made_{number}")
        function.__qualname__ = f"made_{number}"
        monkeypatch.setattr(sys.modules[__name__], f"made_{number}", function, raising=False)
    path = save({"a": [Many(number) for number in range(150)]})
    with pytest.raises(ModelError, match="more than 100 kinds"):
        read_file(path)
