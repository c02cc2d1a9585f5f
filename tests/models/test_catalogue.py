"""Every network of the catalogue is what its entry says, loads everywhere and tells photographs apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from hyps.models import catalogue, writer
from hyps.models.catalogue import NETWORKS, build, parameter_count
from hyps.models.errors import MissingWeights, ModelError, UnknownNetwork
from hyps.models.weights import SeededWeight
from hyps.passes.graph import element_bytes

Built = Callable[[str], Path]
SEEDED = [name for name, network in NETWORKS.items() if not network.trained]
SMALL = ["squeezenet", "mobilenetv2"]
VARIED = ["alexnet", "resnet50", "googlenet", *SMALL, "densenet121", "vit_tiny", "mobilenetv2_int8"]
PUBLISHED = {
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "alexnet": 61_100_840,
    "resnet50": 25_557_032,
    "googlenet": 6_624_904,
    "mobilenetv2": 3_504_872,
    "squeezenet": 1_235_496,
    "xception": 22_855_952,  # Keras: 22,910,480 with running statistics
    "densenet121": 7_978_856,
    "inceptionv3": 23_834_568,  # torchvision: 27,161,264 with the auxiliary head's 3,326,696
    "unet": 31_030_658,  # counted from figure 1: one channel in, two classes out
    "tiny_yolo": 15_861_773,  # Keras ports: 15,867,885 with running statistics
    "c3d": 79_991_015,  # counted from figure 3, with 487 classes
    "lstm_tagger": 20_000 * 128 + 2 * 4 * 256 * (128 + 256 + 2) + 45 * 513,  # as torch.nn.LSTM counts: two biases
    "vit_tiny": 5_717_416,
    "wassimnet_wide": 20_168_188,  # VGG19's convolutions with batch normalisation, and six linear layers
    "mobilenetv2_int8": 3_504_872 - 34_112 + 17_056,  # normalisation is folded into biases
}
OUTPUTS = {
    "vgg16": ("prob", [1, 1000]),
    "vgg19": ("prob", [1, 1000]),
    "squeezenet": ("prob", [1, 1000]),
    "unet": ("logits", [1, 2, 388, 388]),
    "tiny_yolo": ("boxes", [1, 125, 13, 13]),
    "c3d": ("prob", [1, 487]),
    "lstm_tagger": ("logits", [1, 64, 45]),
    "wassimnet_wide": ("scores", [1, 10]),
}
"""What differs from logits of 1000 classes."""


def run(session: Any, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the last output of a session for its only input."""
    return np.asarray(session.run(None, {session.get_inputs()[0].name: values})[-1])


def sample(name: str, seed: int) -> NDArray[Any]:
    """A seeded input of a network: normal values, or word numbers."""
    rng, network = np.random.default_rng(seed), NETWORKS[name]
    if network.input_dtype == "int64":
        return rng.integers(0, 20_000, network.input_shape)
    return rng.standard_normal(network.input_shape, dtype=np.float32)


def _session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.disable_prepacking", "1")  # copies the weights
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_number(name: str, built: Built) -> None:
    model = onnx.load(built(name), load_external_data=False)
    assert parameter_count(model) == PUBLISHED[name] == NETWORKS[name].parameters
    scales = {node.input[1] for node in model.graph.node if node.op_type in {"DequantizeLinear", "QuantizeLinear"}}
    integers = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.dims
        and (tensor.data_type == onnx.TensorProto.FLOAT or tensor.name in integers)
        and tensor.name not in scales
    ]
    assert sum(element_bytes(tensor.data_type, math.prod(tensor.dims)) for tensor in weights) == NETWORKS[name].weights_bytes


@pytest.mark.parametrize("name", SEEDED)
def test_file_is_valid_and_has_the_stated_input_and_output(name: str, built: Built) -> None:
    onnx.checker.check_model(built(name), full_check=True)
    model = onnx.load(built(name), load_external_data=False)
    (source,), output = model.graph.input, model.graph.output[-1]
    assert len(model.graph.output) == (6 if name == "wassimnet_wide" else 1)
    assert source.name == NETWORKS[name].input_name
    assert tuple(axis.dim_value for axis in source.type.tensor_type.shape.dim) == NETWORKS[name].input_shape
    shape = [axis.dim_value for axis in output.type.tensor_type.shape.dim]
    assert (output.name, shape) == OUTPUTS.get(name, ("logits", [1, 1000]))
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


@pytest.mark.parametrize("name", SEEDED)
def test_output_is_finite_and_unsaturated(name: str, built: Built) -> None:
    session = _session(built(name))
    output, other = run(session, sample(name, 1)), run(session, sample(name, 2))
    assert np.isfinite(output).all()
    assert output.std() > (0.1 if OUTPUTS.get(name, ("logits",))[0] != "prob" else 0)
    assert np.abs(output - other).max() > 0.01 * np.abs(output).max()  # it has not forgotten its input
    assert np.abs(output).max() < 50
    if OUTPUTS.get(name, ("logits",))[0] == "prob":
        assert output.max() < 0.99


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet50", "googlenet", "mobilenetv2", "squeezenet", "densenet121", "vit_tiny", "mobilenetv2_int8"]
)
def test_photographs_fall_into_several_classes(name: str, built: Built, photographs: list[NDArray[np.float32]]) -> None:
    session = _session(built(name))
    classes = {int(session.run(None, {"image": image})[0].argmax()) for image in photographs}
    assert len(classes) > 10


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv2_int8"])
def test_seed_decides_every_byte(name: str, built: Built, tmp_path: Path) -> None:
    build(name, tmp_path / "same.onnx", seed=0)
    build(name, tmp_path / "other.onnx", seed=1)
    assert (tmp_path / "same.onnx").read_bytes() == built(name).read_bytes()
    assert (tmp_path / "other.onnx").read_bytes() != built(name).read_bytes()


def test_file_is_what_onnx_itself_would_write(built: Built) -> None:
    """The writer assembles protobuf by hand: reading and writing by onnx must keep the model and its size."""
    content = built("mobilenetv2").read_bytes()
    again = onnx.load_model_from_string(content).SerializeToString()
    assert len(again) == len(content)
    assert onnx.load_model_from_string(again) == onnx.load_model_from_string(content)


@pytest.mark.parametrize("name", SMALL)
def test_external_data_give_the_same_result(name: str, built: Built, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    build(name, path, external_data=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size < NETWORKS[name].weights_bytes / 10
    onnx.checker.check_model(path, full_check=True)
    image = np.random.default_rng(2).standard_normal(NETWORKS[name].input_shape, dtype=np.float32)
    np.testing.assert_array_equal(run(_session(path), image), run(_session(built(name)), image))


def test_weights_of_a_page_or_more_begin_on_a_page(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    build("squeezenet", path, external_data=True)
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    large = [int(place["offset"]) for place in places if int(place["length"]) >= writer.PAGE_BYTES]
    assert large
    assert all(offset % writer.PAGE_BYTES == 0 for offset in large)


def test_too_many_weights_for_one_file_become_external(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "ONE_FILE_BYTES", NETWORKS["squeezenet"].weights_bytes - 1)
    build("squeezenet", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").exists()


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNetwork) as caught:
        build("vgg17", tmp_path / "model.onnx")
    assert isinstance(caught.value, ModelError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        "unknown network 'vgg17': did you mean 'vgg19'? choose one of "
        "vgg16, vgg19, alexnet, resnet50, googlenet, mobilenetv2, squeezenet, xception, densenet121, inceptionv3, unet, "
        "tiny_yolo, c3d, lstm_tagger, vit_tiny, mobilenetv2_int8, cifar10_vgg, wassimnet, wassimnet_wide"
    )


def test_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"there is no folder .*absent, create it first"):
        build("squeezenet", tmp_path / "absent" / "model.onnx")


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_interrupt_leaves_the_old_file_and_nothing_else(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def interrupt(_weight: object, _seed: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SeededWeight, "draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build("squeezenet", path, external_data=external)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_trained_network_is_the_packaged_file(external: bool, built: Built, tmp_path: Path) -> None:
    network = NETWORKS["cifar10_vgg"]
    path = tmp_path / "model.onnx"
    build(network.name, path, external_data=external)
    model = onnx.load(path)
    assert parameter_count(model) == network.parameters
    image = np.random.default_rng(3).standard_normal(network.input_shape, dtype=np.float32)
    assert run(_session(path), image).shape == (1, 10)
    np.testing.assert_array_equal(run(_session(path), image), run(_session(built(network.name)), image))


def test_absent_trained_file_is_a_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "files", lambda _package: tmp_path)
    with pytest.raises(MissingWeights, match=r"cifar10_vgg\.onnx is not in the hyps\.models package"):
        build("cifar10_vgg", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_labels_of_the_trained_network() -> None:
    labels = resources.files("hyps.models").joinpath("cifar10_labels.txt").read_text().splitlines()
    assert len(labels) == 10
    assert (labels[0], labels[-1]) == ("airplane", "truck")
