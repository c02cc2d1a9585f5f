"""What ``--preprocess`` and ``--labels`` mean: presets and files, resolved for the model's own input and output."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from hyps.compiler.errors import OptionError
from hyps.runtime.bundle.manifest import Preprocess, TensorRecord

#: Labels and preprocessing files larger than this are refused.
FILE_LIMIT_BYTES = 4 << 20
#: The smallest and the largest normal float32: what the runtime computes with.
FLOAT32_MIN, FLOAT32_MAX = 2.0**-126, 3.4e38


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A preprocessing file. What is left out follows from the model's input.

    ``resize``: length of the short side in pixels before the centre crop, a factor of the crop's (``"256/224"``), or
    ``"stretch"`` to scale both sides to ``size`` (height, width). Then (pixel x ``scale`` - ``mean``) / ``std``.
    """

    size: tuple[int, int] | None = None
    resize: int | str = "stretch"
    crop: Literal["centre", "none"] = "centre"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    colour: Literal["RGB", "BGR", "L"] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] | None = None
    dtype: Literal["float32", "float16", "uint8", "int8"] | None = None


#: Sources: torchvision's reference transforms (imagenet); Caffe's bvlc models (imagenet-caffe); keras_applications'
#: ``mode="tf"`` (tf); the means and deviations of the CIFAR-10 training set (cifar10, as in models/train_cifar10.py).
PRESETS: Mapping[str, Recipe] = {
    "imagenet": Recipe(resize="256/224", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "imagenet-caffe": Recipe(resize="256/224", colour="BGR", mean=(104.0, 117.0, 123.0)),
    "tf": Recipe(resize="256/224", scale=1 / 127.5, mean=(1.0,)),
    "cifar10": Recipe(resize="1/1", scale=1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "raw": Recipe(),
}


def resolve_preprocess(choice: str, name: str, record: TensorRecord) -> Preprocess:
    """The preprocessing that preset or TOML file ``choice`` means for the image input ``name``.

    Raises `OptionError` when the input takes no image or the file is wrong.
    """
    recipe = PRESETS[choice] if choice in PRESETS else _read_recipe(choice)
    if recipe.crop == "none" and recipe.resize != "stretch":
        raise OptionError(f'--preprocess {choice}: without a crop the picture is stretched; say resize = "stretch"')
    layout = recipe.layout or _layout(name, record.shape)
    height, width, channels = _image_shape(name, record.shape, layout)
    colour: Literal["RGB", "BGR", "L"] = recipe.colour or ("L" if channels == 1 else "RGB")
    if (colour == "L") != (channels == 1):
        raise OptionError(f"--preprocess {choice}: colour {colour} does not fit input {name!r} with {channels} channels")
    if channels not in (1, 3):
        raise OptionError(f"--preprocess {choice}: input {name!r} has {channels} channels as {layout}; an image has 1 or 3")
    if recipe.dtype not in (None, record.dtype):
        raise OptionError(f"--preprocess {choice}: dtype {recipe.dtype} is not that of input {name!r}, {record.dtype}")
    if choice in PRESETS and choice != "raw" and "int" in record.dtype:
        raise OptionError(
            f"--preprocess {choice}: input {name!r} takes whole numbers, {record.dtype}; use raw, or a .toml file"
        )
    size = recipe.size or (height, width)
    if size != (height, width):
        raise OptionError(f"--preprocess {choice}: size {size} is not that of input {name!r}, {(height, width)}")
    for key, values in (("mean", recipe.mean), ("std", recipe.std)):
        if len(values) not in (1, channels) or (key == "std" and any(abs(value) < FLOAT32_MIN for value in values)):
            raise OptionError(f"--preprocess {choice}: {key} needs one number, or {channels}; std must not be 0")
    if not all(abs(value) <= FLOAT32_MAX for value in (recipe.scale, *recipe.mean, *recipe.std)):
        raise OptionError(f"--preprocess {choice}: scale, mean and std are finite numbers, within those of float32")
    try:
        return msgspec.convert(
            {
                "size": size,
                "resize": _short_side(choice, recipe.resize, size),
                "interpolation": recipe.interpolation,
                "colour": colour,
                "scale": recipe.scale,
                "mean": recipe.mean,
                "std": recipe.std,
                "layout": layout,
                "dtype": recipe.dtype or record.dtype,
            },
            Preprocess,
        )
    except msgspec.ValidationError as error:
        raise OptionError(f"--preprocess {choice} does not fit input {name!r}: {error}") from None


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """The class names in a text file, line k for class k; a leading WordNet id and further synonyms are left out.

    Raises `OptionError` when the file cannot be read or has another number of lines than ``classes``.
    """
    lines = _read_text(path, "--labels").splitlines()
    if len(lines) != classes:
        raise OptionError(f"--labels: {path} has {len(lines)} lines, the model has {classes} classes")
    return tuple(re.sub(r"^n\d{8}\s+", "", line).split(",")[0].strip() for line in lines)


def _read_recipe(choice: str) -> Recipe:
    path = Path(choice)
    if not choice.endswith(".toml"):
        raise OptionError(f"--preprocess {choice!r}: use {', '.join(PRESETS)}, or a .toml file")
    try:
        return msgspec.convert(tomllib.loads(_read_text(path, "--preprocess")), Recipe)
    except ValueError as error:  # no TOML, an endless number, or what a recipe does not hold
        raise OptionError(f"--preprocess: {path}: {error}") from None
    except RecursionError:
        raise OptionError(f"--preprocess: {path} nests too deeply") from None


def _read_text(path: Path, option: str) -> str:
    try:
        if path.stat().st_size > FILE_LIMIT_BYTES:
            raise OptionError(f"{option}: {path} is larger than {FILE_LIMIT_BYTES} bytes")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise OptionError(f"{option}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OptionError(f"{option}: {path} is no text file in UTF-8") from None


def _layout(name: str, shape: tuple[int, ...]) -> Literal["NCHW", "NHWC"]:
    if len(shape) == 4 and shape[1] in (1, 3):
        return "NCHW"
    if len(shape) == 4 and shape[3] in (1, 3):
        return "NHWC"
    raise OptionError(f"--preprocess: input {name!r} of shape {list(shape)} takes no image; give it tensors as .npy or .npz")


def _image_shape(name: str, shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """(height, width, channels) of one image."""
    if len(shape) != 4 or shape[0] != 1:
        raise OptionError(f"--preprocess: input {name!r} of shape {list(shape)} takes no single image (batch of 1)")
    channels, height, width = shape[1:] if layout == "NCHW" else (shape[3], shape[1], shape[2])
    return height, width, channels


def _short_side(choice: str, resize: int | str, size: tuple[int, int]) -> int | None:
    if resize == "stretch":
        return None
    if isinstance(resize, int):
        side = resize
    else:
        match = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", resize)
        if not match:
            raise OptionError(
                f'--preprocess {choice}: resize is a number of pixels, a factor such as "256/224", or "stretch"'
            )
        side = round(max(size) * int(match[1]) / int(match[2]))
    if side < max(size):
        raise OptionError(f"--preprocess {choice}: resize to {side} is smaller than the crop of {max(size)}")
    return side
