"""Write small videos of a square that moves over noise, and compile small networks that look at windows of frames."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream
from onnx import TensorProto, helper, numpy_helper

from hyps.compiler import compile_model

RATE, WIDTH, HEIGHT = 25, 64, 48


def pictures(count: int) -> Iterable[np.ndarray]:
    """Yield frames of shape [H, W, 3]: a bright square on noise, three pixels further right in each."""
    generator = np.random.default_rng(7)
    background = generator.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number in range(count):
        frame = background.copy()
        left = 3 * number % (WIDTH - 12)
        frame[10:22, left : left + 12] = (250, 40, 200)
        yield frame


def write_clip(path: Path, count: int, codec: str = "libx264", times: Iterable[int] | None = None) -> Path:
    """Write ``count`` frames, ``times`` in hundredths of a second where their rate varies; return the path."""
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=RATE))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for pixels, time in zip(pictures(count), times or range(0, 4 * count, 4), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a tenth of a second of silence without a video; return the path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def compile_clip_network(folder: Path, frames: int = 4, **options: Any) -> Path:
    """Compile a network of two 3-D convolutions over windows of so many frames of 24 x 32 pixels; return the bundle."""
    generator = np.random.default_rng(1)
    weights: dict[str, np.ndarray] = {
        "w1": generator.standard_normal((8, 3, 3, 3, 3)).astype(np.float32),
        "w2": generator.standard_normal((5, 8, frames, 3, 3)).astype(np.float32) / 10,
    }
    nodes = [
        helper.make_node("Conv", ["clip", "w1"], ["c1"], "c1", pads=[1] * 6),
        helper.make_node("Relu", ["c1"], ["r1"], "r1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "c2"),
        helper.make_node("GlobalAveragePool", ["c2"], ["pooled"], "pooled"),
        helper.make_node("Flatten", ["pooled"], ["scores"], "scores"),
    ]
    graph = helper.make_graph(
        nodes,
        "clips",
        [helper.make_tensor_value_info("clip", TensorProto.FLOAT, [1, 3, frames, 24, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "clips.onnx").write_bytes(model.SerializeToString())
    bundle = folder / "clips"
    compile_model(folder / "clips.onnx", bundle, memory_bytes=140_000_000, preprocess="raw", video=(64, 48), **options)
    return bundle
