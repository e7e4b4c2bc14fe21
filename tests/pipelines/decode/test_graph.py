"""What goes into the graph and what its messages say."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from pipelines import AugmentConfig, LoaderConfig, SamplingConfig, TrainLoader
from pipelines.decode.dali_errors import DecodeError, error_line
from pipelines.decode.decoder import Decoder, EncodedBatch
from pipelines.decode.graph import GraphSpec, dali, decode_jpeg
from pipelines.read.gops import unrepeated
from tests.pipelines.loaders import batches, same, train

# TIFF, little endian, one entry: orientation (0x112) 6, "turn by 90 degrees to show".
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def first_jpeg(split) -> bytes:
    """The first frame of the first sample of an mjpeg set."""
    row = split.samples[0]
    entry = split.frames[row["first_frame"]]
    with open(split.tar_path(0), "rb") as file:
        file.seek(int(row["offset"]) + int(entry["offset"]))
        return file.read(int(entry["size"]))


@pytest.mark.parametrize("device_id", [None, 0])
@pytest.mark.parametrize("roi", [True, False])
def test_chroma_is_interpolated_on_every_device(monkeypatch, roi, device_id):
    """Building a graph with a device needs a GPU, its nodes do not."""
    fn, types = dali().fn, dali().types
    name, arguments = "image_slice" if roi else "image", {}
    original = getattr(fn.decoders, name)

    def record(*inputs: object, **settings: object) -> object:
        arguments.update(settings)
        return original(*inputs, **settings)

    monkeypatch.setattr(fn.decoders, name, record)
    spec = GraphSpec("jpeg", batch=1, size=16, roi_decode=roi, threads=1, device_id=device_id)
    with dali().Pipeline(batch_size=1, num_threads=1, device_id=device_id):
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        window = [fn.external_source(name=n, dtype=types.INT64, ndim=1) for n in ("at", "shape")]
        decode_jpeg(encoded, tuple(window), spec)
    assert arguments["jpeg_fancy_upsampling"] is True
    assert arguments["device"] == ("cpu" if device_id is None else "mixed")


@pytest.mark.parametrize(("device_id", "load"), [(0, 0.25), (0, None), (None, 0.25)])
def test_the_load_of_the_hardware_decoder_is_for_gpus(monkeypatch, device_id, load):
    fn, types = dali().fn, dali().types
    arguments, original = {}, fn.decoders.image

    def record(*inputs: object, **settings: object) -> object:
        arguments.update(settings)
        return original(*inputs, **settings)

    monkeypatch.setattr(fn.decoders, "image", record)
    spec = GraphSpec("jpeg", batch=1, size=16, threads=1, device_id=device_id, hw_load=load)
    with dali().Pipeline(batch_size=1, num_threads=1, device_id=device_id):
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        decode_jpeg(encoded, (), spec)
    assert arguments.get("hw_decoder_load") == (None if device_id is None else load)


def test_the_frames_of_a_resize_kernel_change_no_pixel(split):
    settings = [LoaderConfig(threads=1, resize="dali", resize_batch=n) for n in (None, 3, 512)]
    results = [batches(train(split, config=config))[:2] for config in settings]
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_the_cpu_interpolates_chroma_with_or_without_the_setting(split):
    fn, types = dali().fn, dali().types
    pipeline = dali().Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        settings = [{}, {"jpeg_fancy_upsampling": True}]
        pictures = [fn.decoders.image(encoded, output_type=types.RGB, **s) for s in settings]
        pipeline.set_outputs(*pictures)
    pipeline.build()
    pipeline.feed_input("encoded", [np.frombuffer(first_jpeg(split), np.uint8)])
    plain, fancy = (np.asarray(output.as_tensor()) for output in pipeline.run())
    assert plain.std() > 0
    assert np.array_equal(plain, fancy)


@pytest.mark.parametrize("roi", [True, False])
def test_an_exif_orientation_turns_nothing(split, roi):
    plain = first_jpeg(split)
    turned = plain[:2] + b"\xff\xe1" + (len(EXIF) + 2).to_bytes(2, "big") + EXIF + plain[2:]
    with av.open(io.BytesIO(plain), format="jpeg_pipe") as file:
        height, width = next(file.decode(video=0)).to_ndarray(format="rgb24").shape[:2]
    assert height != width
    decoder = Decoder(GraphSpec("jpeg", batch=2, size=16, roi_decode=roi, threads=1), frames=2)
    pictures = [np.frombuffer(data, np.uint8) for data in (plain, turned)]
    box = np.array([[[0, 0, height, width]]], np.float32)
    decoder.submit(EncodedBatch([pictures], box, np.zeros(1, bool), np.ones((1, 4), np.float32)))
    clips = decoder.tensor(decoder.collect())[0, 0]
    assert clips[0].any()
    assert (clips[0] == clips[1]).all()
    decoder.close()


def test_each_frame_is_asked_for_once():
    frames = np.array([4, 4, 0, 9, 4])
    picks, gather = unrepeated(frames)
    assert picks.tolist() == [0, 4, 9]
    assert (picks[gather] == frames).all()
    assert picks.dtype == gather.dtype == np.int32


def test_the_webdataset_reader_never_repeats_a_frame(split_of, monkeypatch):
    config = LoaderConfig(reader="webdataset", threads=1)
    augment = AugmentConfig(size=32, short_sides=(64, 80))
    loader = TrainLoader(
        split_of("vp9"), SamplingConfig(), augment, config, seed=0, batch_size=3
    )  # fmt: skip
    decoder = loader.source.make_decoder()
    fed: list[np.ndarray] = []
    feed = decoder.pipeline.feed_input

    def record(name: str, values: list[np.ndarray]) -> None:
        fed.extend(values if name == "picks" else [])
        feed(name, values)

    monkeypatch.setattr(decoder.pipeline, "feed_input", record)
    for request in loader.source.open(0):
        decoder.submit(loader.source.load(request).encoded)
        decoder.collect()
    decoder.close()
    assert len(fed) == 9
    assert all(len(np.unique(picks)) == len(picks) for picks in fed)
    assert any(len(picks) < 16 for picks in fed)
    loader.close()


def test_the_telling_line_of_a_refusal():
    decoder = Decoder(GraphSpec("jpeg", batch=1, size=16, threads=1), frames=1)
    box, flip, colour = np.array([[[0, 0, 8, 8]]]), np.zeros(1, bool), np.ones((1, 4))
    decoder.submit(EncodedBatch([[np.zeros(100, np.uint8)]], box, flip, colour))
    with pytest.raises(DecodeError) as caught:
        decoder.collect()
    assert "nvImageCodec" in str(caught.value)
    decoder.close()
    assert error_line("plain words") == "plain words"
    assert error_line("") == "DALI gave no reason"
