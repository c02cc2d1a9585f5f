"""List the reference networks by name, and build them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import onnx

from hyps.models.alexnet import alexnet
from hyps.models.c3d import c3d
from hyps.models.densenet import densenet121
from hyps.models.errors import MissingWeights, UnknownNetwork
from hyps.models.googlenet import googlenet
from hyps.models.inception import inceptionv3
from hyps.models.layers import Compose, LayerOutput, Layers
from hyps.models.mobilenet import mobilenetv2
from hyps.models.network import Network
from hyps.models.quantise import quantise
from hyps.models.resnet import resnet50
from hyps.models.squeezenet import squeezenet
from hyps.models.staging import staged_file
from hyps.models.tagger import lstm_tagger
from hyps.models.unet import unet
from hyps.models.vgg import vgg16, vgg19
from hyps.models.vit import vit_tiny
from hyps.models.wassimnet import wassimnet
from hyps.models.writer import INLINE_BYTES, data_path, write_external, write_inline
from hyps.models.xception import xception
from hyps.models.yolo import tiny_yolo

ONE_FILE_BYTES = 10**9
"""Above this, weights go to a file of their own: protobuf cannot hold 2 GiB, and many tools fail earlier."""


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network(
                name="vgg16",
                description="VGG16: Simonyan and Zisserman 2014, their D",
                parameters=138_357_544,
                compose=vgg16,
            ),
            Network(
                name="vgg19",
                description="VGG19: Simonyan and Zisserman 2014, their E",
                parameters=143_667_240,
                compose=vgg19,
            ),
            Network(
                name="alexnet",
                description="AlexNet: Krizhevsky 2014, as in torchvision",
                parameters=61_100_840,
                compose=alexnet,
            ),
            Network(
                name="resnet50",
                description="ResNet50 v1.5: He et al. 2015, as in torchvision",
                parameters=25_557_032,
                statistics=53_120,
                compose=resnet50,
            ),
            Network(
                name="googlenet",
                description="GoogLeNet: Szegedy et al. 2014, as in torchvision",
                parameters=6_624_904,
                statistics=14_560,
                compose=googlenet,
            ),
            Network(
                name="mobilenetv2",
                description="MobileNetV2: Sandler et al. 2018, torchvision's",
                parameters=3_504_872,
                statistics=34_112,
                compose=mobilenetv2,
            ),
            Network(
                name="squeezenet",
                description="SqueezeNet 1.1: Iandola et al. 2016, torchvision's",
                parameters=1_235_496,
                compose=squeezenet,
            ),
            Network(
                name="xception",
                description="Xception: Chollet 2016, as in Keras",
                parameters=22_855_952,
                statistics=54_528,
                input_shape=(1, 3, 299, 299),
                compose=xception,
            ),
            Network(
                name="densenet121",
                description="DenseNet-121: Huang et al. 2016, as in torchvision",
                parameters=7_978_856,
                statistics=83_648,
                compose=densenet121,
            ),
            Network(
                name="inceptionv3",
                description="Inception v3: Szegedy et al. 2015, torchvision's",
                parameters=23_834_568,
                statistics=34_432,
                input_shape=(1, 3, 299, 299),
                compose=inceptionv3,
            ),
            Network(
                name="unet",
                description="U-Net: Ronneberger et al. 2015, figure 1",
                parameters=31_030_658,
                input_shape=(1, 1, 572, 572),
                preprocess=None,
                compose=unet,
            ),
            Network(
                name="tiny_yolo",
                description="Tiny YOLOv2 for VOC: Redmon and Farhadi 2016",
                parameters=15_861_773,
                statistics=6_112,
                input_shape=(1, 3, 416, 416),
                preprocess=None,
                compose=tiny_yolo,
            ),
            Network(
                name="c3d",
                description="C3D, 3-D convolutions: Tran et al. 2014",
                parameters=79_991_015,
                input_name="clip",
                input_shape=(1, 3, 16, 112, 112),
                preprocess=None,
                compose=c3d,
            ),
            Network(
                name="lstm_tagger",
                description="Tagger, a bidirectional LSTM: Huang et al. 2015",
                parameters=3_373_613,
                input_name="tokens",
                input_dtype="int64",
                input_shape=(1, 64),
                preprocess=None,
                compose=lstm_tagger,
            ),
            Network(
                name="vit_tiny",
                description="ViT of DeiT-Ti's size: Dosovitskiy et al. 2020",
                parameters=5_717_416,
                compose=vit_tiny,
            ),
            Network(
                name="mobilenetv2_int8",
                description="mobilenetv2 in 8 bits, QDQ, a scale a channel",
                parameters=3_487_816,
                int8_bytes=3_541_984,
                quantised_from="mobilenetv2",
            ),
            Network(
                name="cifar10_vgg",
                description="VGG-style classifier, trained here on CIFAR-10",
                parameters=1_182_506,
                input_shape=(1, 3, 32, 32),
                preprocess="cifar10",
            ),
            Network(
                name="wassimnet",
                description="WassimNet, narrow: exits, trained here on CIFAR-10",
                parameters=1_157_436,
                input_shape=(1, 3, 32, 32),
                preprocess="cifar10",
            ),
            Network(
                name="wassimnet_wide",
                description="WassimNet, five early exits: Seifeddine, his 3.2",
                parameters=20_168_188,
                statistics=11_008,
                input_shape=(1, 3, 32, 32),
                preprocess="cifar10",
                compose=wassimnet,
            ),
        )
    }
)


def build(
    name: str,
    path: Path,
    *,
    external_data: bool = False,
    seed: int = 0,
    advance: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write the network ``name`` to ``path``, whole or not at all, with weights drawn from ``seed``.

    With ``external_data``, or above 1 GB of weights, these go to ``<path>.data``. A trained network ignores the seed.
    ``advance`` is called with the bytes of each weight that was drawn.

    Raises:
        UnknownNetwork: the catalogue has no such network.
        MissingWeights: the trained network's file is not in the package.
        OSError: the files cannot be written.
    """
    if name not in NETWORKS:
        raise UnknownNetwork(name, NETWORKS)
    network = NETWORKS[name]
    external = external_data or network.weights_bytes > ONE_FILE_BYTES
    with staged_file(path) as draft:
        if network.quantised_from is not None:
            _write_quantised(network.quantised_from, draft, external, seed)
        elif network.compose is not None:
            _write_composed(network, network.compose, draft, external, seed, advance)
        else:
            _copy(_packaged(name), draft, external)


def parameter_count(model: onnx.ModelProto) -> int:
    """Return the number of learnable parameters: all weights but running statistics, scales and scalar constants.

    Weights are float tensors and, in a quantised network, what DequantizeLinear reads.
    """
    nodes = model.graph.node
    others = {name for node in nodes if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    others |= {node.input[1] for node in nodes if node.op_type in {"DequantizeLinear", "QuantizeLinear"}}
    quantised = {node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if (tensor.data_type == onnx.TensorProto.FLOAT or tensor.name in quantised)
        and tensor.dims
        and tensor.name not in others
    )


def _write_composed(
    network: Network, compose: Compose, path: Path, external: bool, seed: int, advance: Callable[[int], None]
) -> None:
    net, source = Layers(), LayerOutput(name=network.input_name, shape=network.input_shape)
    source_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(network.input_dtype))
    model = net.model(network.name, source, compose(net, source), source_type=source_type)
    write = write_external if external else write_inline
    write(path, model, net.weights, seed, advance)


def _write_quantised(name: str, path: Path, external: bool, seed: int) -> None:
    with TemporaryDirectory() as folder:
        plain = Path(folder, f"{name}.onnx")
        build(name, plain, seed=seed)
        _copy(quantise(plain, NETWORKS[name].input_shape, seed), path, external)


def _packaged(name: str) -> bytes:
    resource = resources.files("hyps.models").joinpath(f"{name}.onnx")
    if not resource.is_file():
        raise MissingWeights(resource.name)
    return resource.read_bytes()


def _copy(content: bytes, path: Path, external: bool) -> None:
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
