"""Measure decoding itself: errors over all patterns of losses, and its time next to that of the shards."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.utils import Extractor

from hyps.models.catalogue import build
from hyps.models.train_lenet5 import TRAINED, load_digits
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.cluster.codes.decoding import decode
from hyps.runtime.cluster.protocol.frames import digest_of
from tests.bench.codes_results import DecodingCost, LossRun
from tests.bench.place import Place
from tests.bench.readings import Skipped
from tests.repository import BIN, ROOT

_INPUTS = int(os.environ.get("INPUTS", "1000"))
_TIMED = 15
PARTS = tuple(round(0.1 * number, 1) for number in range(10))
_DATA = ROOT.parent / "shared" / "data" / "cifar10_test.npz"


def decoding_costs(place: Place) -> tuple[DecodingCost, ...]:
    """Compute all shards of codes on random inputs; decode every pattern of losses.

    All codes of the classifier, with one and two parity shards, and three operators of VGG16, whose weights are seeded.
    """
    made: list[DecodingCost] = []
    vgg16 = place.folder / "vgg16.onnx"
    build("vgg16", vgg16)
    largest = [option for name in ("conv1_2", "conv4_2", "fc6") for option in ("--code", f"{name}=1")]
    for network, model, memory, options, inputs in (
        ("CIFAR classifier", ROOT / "models/cifar10_vgg.onnx", "72MB", ["--tolerate", "1"], _INPUTS),
        ("CIFAR classifier", ROOT / "models/cifar10_vgg.onnx", "72MB", ["--tolerate", "2"], _INPUTS),
        ("VGG16", vgg16, "256MB", largest, max(5, _INPUTS // 50)),
    ):
        bundle = place.folder / f"bundle-{len(made)}"
        command: list[str | Path] = [BIN / "hypsc", "compile", model, "-o", bundle, "--memory", memory]
        subprocess.run([*command, *options, "--threads", "1"], check=True, capture_output=True)
        manifest = read_manifest(bundle)
        for code in manifest.codes:
            place.say(f"{network}, {code.name}, {len(code.parity)} parity shards")
            made.append(_cost(bundle, manifest, code, network, inputs))
        shutil.rmtree(bundle)
    return tuple(made)


def _cost(bundle: Path, manifest: Manifest, code: CodeRecord, network: str, inputs: int) -> DecodingCost:
    makers = {name: step for step in manifest.steps for name in step.outputs}
    steps = [makers[name] for name in code.tensors]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("session.disable_prepacking", "1")
    sessions = [ort.InferenceSession(bundle / step.model.path, options) for step in steps]
    (source,) = steps[0].inputs
    record, shape = manifest.tensors[code.shards[0]], manifest.tensors[source].shape
    count, members = len(code.shards), range(len(code.tensors))
    generator = np.random.default_rng(count)
    worst, patterns = 0.0, 0
    losses = [lost for size in range(1, len(code.parity) + 1) for lost in itertools.combinations(members, size)]
    shard_s: list[float] = []
    decode_s: list[float] = []
    for number in range(inputs):
        # behind a ReLU, of changing scale
        values = np.maximum(generator.standard_normal(shape), 0).astype(np.float32) * np.float32(10.0 ** (number % 5 - 2))
        answers, slowest = [], 0.0
        for session, name in zip(sessions, code.tensors, strict=True):
            began = time.perf_counter()
            answers.append(session.run([name], {source: values})[0])
            slowest = max(slowest, time.perf_counter() - began)
        shard_s.append(slowest)
        scale = max(float(np.abs(each).max()) for each in answers[:count])
        for lost in losses:
            wanted = [each for each in lost if each < count]
            if not wanted:
                continue
            present = {each: answers[each].tobytes() for each in members if each not in lost}
            began = time.perf_counter()
            found = decode(code, record, present, wanted)
            for data in found.values():
                digest_of(data)
            if len(decode_s) < 200 * _TIMED:
                decode_s.append(time.perf_counter() - began)
            patterns += number == 0
            for each, data in found.items():
                off = np.abs(np.frombuffer(data, np.float32) - answers[each].ravel()).max()
                worst = max(worst, float(off) / scale)
    return DecodingCost(
        code=f"{network}, {code.name}",
        shards=count,
        parity=len(code.parity),
        tensor_bytes=record.nbytes,
        shard_s=statistics.median(shard_s),
        decode_s=statistics.median(decode_s),
        inputs=inputs,
        patterns=patterns,
        error=worst,
        bound=code.error_bound,
    )


def loss_runs(place: Place) -> tuple[LossRun, ...]:
    """Lose channels of layers of the trained networks, without codes and with (figure 6.2)."""
    digits, classes = _digits()
    pictures, labels = _test_images()
    made = [_losses("LeNet-5", "lenet5.onnx", layer, digits, classes) for layer in ("relu1", "relu2", "relu3")]
    for layer in ("relu2_2", "relu3_2", "relu4_1"):
        place.say(layer)
        made.append(_losses("CIFAR classifier", "cifar10_vgg.onnx", layer, pictures, labels))
    return tuple(made)


def _losses(network: str, file: str, layer: str, images: NDArray[np.float32], labels: NDArray[Any]) -> LossRun:
    model = onnx.load(ROOT / "models" / file)
    (tensor,) = next(node.output for node in model.graph.node if node.name == layer)
    cut = Extractor(onnx.shape_inference.infer_shapes(model))
    first, second = (
        ort.InferenceSession(part.SerializeToString())
        for part in (cut.extract_model(["image"], [tensor]), cut.extract_model([tensor], ["scores"]))
    )
    right: dict[float, int] = dict.fromkeys(PARTS, 0)
    coded = 0
    generator = np.random.default_rng(62)
    for image, label in zip(images, labels, strict=True):
        features = first.run(None, {"image": image[None]})[0]
        channels = features.shape[1]
        for part in PARTS:
            damaged = features.copy()
            damaged[:, generator.permutation(channels)[: round(part * channels)]] = 0
            right[part] += int(second.run(None, {tensor: damaged})[0].argmax() == label)
        coded += int(second.run(None, {tensor: _decoded(features, generator)})[0].argmax() == label)
    accuracy = {str(part): count / len(labels) for part, count in right.items()}
    return LossRun(network=network, layer=layer, images=len(labels), accuracy=accuracy, coded=coded / len(labels))


def _decoded(features: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Return a layer one of whose two halves was lost and is decoded from the other and their sum."""
    halves = np.split(features, 2, axis=1)
    code = CodeRecord(
        name="c", shards=("a", "b"), parity=("p",), coefficients=((1.0, 1.0),), amplification=2.0, error_bound=1e-5
    )
    lost = int(generator.integers(2))
    record = TensorRecord(dtype="float32", shape=halves[0].shape)
    present: Mapping[int, bytes] = {1 - lost: halves[1 - lost].tobytes(), 2: (halves[0] + halves[1]).tobytes()}
    halves[lost] = np.frombuffer(decode(code, record, present, [lost])[lost], np.float32).reshape(halves[0].shape)
    return np.concatenate(halves, axis=1)


def _digits() -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the images that did not train LeNet-5."""
    path = _DATA.with_name("mnist.npz")
    if not path.exists():
        raise Skipped("the images of digits are not there")
    images, classes = load_digits(path)
    return images[TRAINED:], classes[TRAINED:]


def _test_images() -> tuple[NDArray[np.float32], NDArray[Any]]:
    if not _DATA.exists():
        raise Skipped("the test images are not there")
    packed = np.load(_DATA)
    mean, std = (np.array(each, np.float32) for each in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    pixels = ((packed["x"].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels), packed["y"]
