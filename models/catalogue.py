"""The reference networks by name, and the one function that builds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import onnx

from hyps.models.alexnet import alexnet
from hyps.models.errors import MissingWeights, UnknownNetwork
from hyps.models.googlenet import googlenet
from hyps.models.layers import Compose, Layers, Value
from hyps.models.mobilenet import mobilenetv2
from hyps.models.resnet import resnet50
from hyps.models.squeezenet import squeezenet
from hyps.models.staging import staged
from hyps.models.vgg import vgg16, vgg19
from hyps.models.writer import INLINE_BYTES, data_path, write_external, write_inline

ONE_FILE_BYTES = 10**9
"""Above this, weights go to a file of their own: protobuf cannot hold 2 GiB, and many tools fail earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One entry of the catalogue.

    ``parameters`` counts what training would learn, ``statistics`` the running means and variances of batch
    normalisation. A network without ``compose`` is trained and lies in the package as ``<name>.onnx``.
    """

    name: str
    description: str
    parameters: int
    statistics: int = 0
    input_shape: tuple[int, int, int, int] = (1, 3, 224, 224)
    preprocess: Literal["imagenet", "cifar10"] = "imagenet"
    compose: Compose | None = None

    @property
    def trained(self) -> bool:
        """Whether the weights are learned, so that the classes mean something."""
        return self.compose is None

    @property
    def weights_bytes(self) -> int:
        """Bytes of all float32 weights, running statistics included."""
        return 4 * (self.parameters + self.statistics)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network(
                name="vgg16",
                description="VGG16, Simonyan and Zisserman 2014, configuration D",
                parameters=138_357_544,
                compose=vgg16,
            ),
            Network(
                name="vgg19",
                description="VGG19, Simonyan and Zisserman 2014, configuration E",
                parameters=143_667_240,
                compose=vgg19,
            ),
            Network(
                name="alexnet",
                description="AlexNet, Krizhevsky 2014, as in torchvision",
                parameters=61_100_840,
                compose=alexnet,
            ),
            Network(
                name="resnet50",
                description="ResNet50 v1.5, He et al. 2015, as in torchvision",
                parameters=25_557_032,
                statistics=53_120,
                compose=resnet50,
            ),
            Network(
                name="googlenet",
                description="GoogLeNet without auxiliary heads, Szegedy et al. 2014, as in torchvision",
                parameters=6_624_904,
                statistics=14_560,
                compose=googlenet,
            ),
            Network(
                name="mobilenetv2",
                description="MobileNetV2, Sandler et al. 2018, as in torchvision",
                parameters=3_504_872,
                statistics=34_112,
                compose=mobilenetv2,
            ),
            Network(
                name="squeezenet",
                description="SqueezeNet 1.1, Iandola et al. 2016, as in torchvision",
                parameters=1_235_496,
                compose=squeezenet,
            ),
            Network(
                name="cifar10_vgg",
                description="VGG-style classifier trained on CIFAR-10 by hyps.models.train_cifar10",
                parameters=1_182_506,
                input_shape=(1, 3, 32, 32),
                preprocess="cifar10",
            ),
        )
    }
)


def build(name: str, path: Path, *, external_data: bool = False, seed: int = 0) -> None:
    """Write the network ``name`` to ``path``, whole or not at all, with weights drawn from ``seed``.

    With ``external_data``, or above 1 GB of weights, these go to ``<path>.data``. A trained network ignores the seed.

    Raises:
        UnknownNetwork: the catalogue has no such network.
        MissingWeights: the trained network's file is not in the package.
        OSError: the files cannot be written.
    """
    if name not in NETWORKS:
        raise UnknownNetwork(name, NETWORKS)
    network = NETWORKS[name]
    external = external_data or network.weights_bytes > ONE_FILE_BYTES
    with staged(path) as draft:
        if network.compose is None:
            _copy_trained(name, draft, external)
        else:
            _write_composed(network, network.compose, draft, external, seed)


def parameter_count(model: onnx.ModelProto) -> int:
    """The number of learnable parameters: all float tensors but running statistics and scalar constants."""
    statistics = {name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims and tensor.name not in statistics
    )


def _write_composed(network: Network, compose: Compose, path: Path, external: bool, seed: int) -> None:
    _, channels, side, _ = network.input_shape
    net, image = Layers(), Value(name="image", channels=channels, side=side)
    model = net.model(network.name, image, compose(net, image))
    write = write_external if external else write_inline
    write(path, model, net.weights, seed)


def _copy_trained(name: str, path: Path, external: bool) -> None:
    resource = resources.files("hyps.models").joinpath(f"{name}.onnx")
    if not resource.is_file():
        raise MissingWeights(resource.name)
    content = resource.read_bytes()
    if not external:
        path.write_bytes(content)
        return
    onnx.save_model(
        onnx.load_model_from_string(content),
        path,
        save_as_external_data=True,
        location=data_path(path).name,
        size_threshold=INLINE_BYTES,
    )
