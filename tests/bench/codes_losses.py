"""Measure what losses do without codes: accuracy when channels of one layer are lost (figure 6.2), and with a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.utils import Extractor

from hyps.models.train_lenet5 import TRAINED, load_digits
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.codes.decoding import decode
from tests.bench.codes_results import LossRun
from tests.bench.photographs import CLASSIFIERS, PhotographClassifier, photographs
from tests.bench.place import Place
from tests.bench.readings import Skipped
from tests.repository import ROOT

PARTS = tuple(round(0.1 * number, 1) for number in range(10))
_DATA = ROOT.parent / "shared" / "data" / "cifar10_test.npz"
#: An early, a middle and the last layer with channels of each photograph classifier, by the tensors that they make. All that
#: follows reads nothing else.
_LAYERS: Mapping[str, Mapping[str, str]] = {
    "SqueezeNet 1.1": {"conv1": "conv1_2", "fire5/squeeze1x1": "fire5/squeeze1x1_2", "conv10": "conv10_2"},
    "MobileNet v1 0.25": {
        "pointwise 3": "MobilenetV1_MobilenetV1_Conv2d_3_pointwise_Relu6_t61",
        "pointwise 8": "MobilenetV1_MobilenetV1_Conv2d_8_pointwise_Relu6_t81",
        "pointwise 13": "MobilenetV1_MobilenetV1_Conv2d_13_pointwise_Relu6_t49",
    },
}


def loss_runs(place: Place) -> tuple[LossRun, ...]:
    """Lose channels of layers of the trained networks, without codes and with."""
    digits, classes = _digits()
    pictures, labels = _test_images()
    made = []
    for network, file, layers, images, right in (
        ("LeNet-5", "lenet5.onnx", ("relu1", "relu2", "relu3"), digits, classes),
        ("CIFAR classifier", "cifar10_vgg.onnx", ("relu2_2", "relu3_2", "relu4_1"), pictures, labels),
    ):
        model = onnx.load(ROOT / "models" / file)
        for layer in layers:
            place.say(f"{network}, {layer}")
            (tensor,) = next(node.output for node in model.graph.node if node.name == layer)
            made.append(_losses(network, layer, model, ("image", tensor, "scores"), images, right))
    return (*made, *(run for classifier in CLASSIFIERS for run in _of_photographs(place, classifier)))


def _of_photographs(place: Place, classifier: PhotographClassifier) -> list[LossRun]:
    images, labels = photographs(classifier)
    model = onnx.load(classifier.path)
    made = []
    for layer, tensor in _LAYERS[classifier.name].items():
        place.say(f"{classifier.name}, {layer}")
        names = classifier.input, tensor, classifier.output
        made.append(_losses(classifier.name, layer, model, names, images, labels))
    return made


def _losses(
    network: str,
    layer: str,
    model: onnx.ModelProto,
    names: tuple[str, str, str],
    images: NDArray[np.float32],
    labels: NDArray[Any],
) -> LossRun:
    """Lose parts of one tensor of a model; ``names`` are those of its input, of that tensor, and of its output."""
    source, tensor, scores = names
    cut = Extractor(onnx.shape_inference.infer_shapes(model))
    first, second = (
        ort.InferenceSession(part.SerializeToString())
        for part in (cut.extract_model([source], [tensor]), cut.extract_model([tensor], [scores]))
    )
    right: dict[float, int] = dict.fromkeys(PARTS, 0)
    coded = 0
    generator = np.random.default_rng(62)
    for image, label in zip(images, labels, strict=True):
        features = first.run(None, {source: image[None]})[0]
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
