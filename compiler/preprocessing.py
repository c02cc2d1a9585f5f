"""Resolve ``--preprocess`` and ``--labels``, presets or files, for the model's own input and output."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from hyps.compiler.errors import OptionError
from hyps.runtime.bundle.records.preprocessing import Layout, Preprocess
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.suggestions import did_you_mean

#: Labels and preprocessing files larger than this are refused.
FILE_LIMIT_BYTES = 4 << 20
#: The bounds of a normal float32, in which the runtime computes.
FLOAT32_MIN, FLOAT32_MAX = 2.0**-126, 3.4e38


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of a preprocessing file; what it leaves out follows from the model's input.

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
    layout: Layout | None = None
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


def resolve_preprocess(choice: str, name: str, record: TensorRecord, *, takes_clips: bool = False) -> Preprocess:
    """Return the preprocessing that the preset or TOML file ``choice`` means for the image input ``name``.

    An input of five axes is one of several frames, where ``takes_clips``.

    Raises `OptionError` if the input takes no image, or if the file is wrong.
    """
    recipe = PRESETS[choice] if choice in PRESETS else _read_recipe(choice)
    where = f"--preprocess {choice}"
    if recipe.crop == "none" and recipe.resize != "stretch":
        raise OptionError(f'{where}: a resize without a crop changes the picture\'s size; set resize = "stretch"')
    layout = recipe.layout or _layout(name, record.shape, takes_clips=takes_clips)
    extents = _extents(name, record.shape, layout)
    height, width, channels = extents["H"], extents["W"], extents["C"]
    colour: Literal["RGB", "BGR", "L"] = recipe.colour or ("L" if channels == 1 else "RGB")
    if (colour == "L") != (channels == 1):
        raise OptionError(f"{where}: colour {colour} does not fit input {name!r} with {channels} channels; set another")
    if channels not in (1, 3):
        raise OptionError(f"{where}: input {name!r} has {channels} channels as {layout}; an image has 1 or 3")
    if recipe.dtype not in (None, record.dtype):
        raise OptionError(f'{where}: dtype {recipe.dtype} is not that of input {name!r}; set dtype = "{record.dtype}"')
    if choice in PRESETS and choice != "raw" and "int" in record.dtype:
        raise OptionError(f"{where}: input {name!r} takes integers, {record.dtype}; use raw, or a .toml file")
    size = recipe.size or (height, width)
    if size != (height, width):
        raise OptionError(f"{where}: size {size} is not that of input {name!r}; set size = {[height, width]}")
    for key, values in (("mean", recipe.mean), ("std", recipe.std)):
        if len(values) not in (1, channels) or (key == "std" and any(abs(value) < FLOAT32_MIN for value in values)):
            raise OptionError(f"{where}: {key} does not fit; give one number or {channels}, and no std of 0")
    if not all(abs(value) <= FLOAT32_MAX for value in (recipe.scale, *recipe.mean, *recipe.std)):
        raise OptionError(f"{where}: scale, mean or std exceeds float32; give finite numbers up to {FLOAT32_MAX:g}")
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
                "frames": extents.get("T"),
                "dtype": recipe.dtype or record.dtype,
            },
            Preprocess,
        )
    except msgspec.ValidationError as error:
        raise OptionError(f"{where} does not fit input {name!r}: {error}") from None


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Return the class names in a text file, line k for class k, without WordNet ids and further synonyms.

    Raises `OptionError` if the file cannot be read, or if its number of lines is not ``classes``.
    """
    lines = _read_text(path, "--labels").splitlines()
    if len(lines) != classes:
        raise OptionError(
            f"--labels: {path} has {len(lines)} lines, the model has {classes} classes; give one line per class"
        )
    return tuple(re.sub(r"^n\d{8}\s+", "", line).split(",")[0].strip() for line in lines)


def _read_recipe(choice: str) -> Recipe:
    path = Path(choice)
    if not choice.endswith(".toml"):
        raise OptionError(
            f"--preprocess: there is no preset {choice!r}; {did_you_mean(choice, PRESETS)}use {', '.join(PRESETS)}, or a "
            ".toml file"
        )
    try:
        return msgspec.convert(tomllib.loads(_read_text(path, "--preprocess")), Recipe)
    except ValueError as error:  # invalid TOML, an overlong number, or an unknown key
        raise OptionError(f"--preprocess: {path}: {error}") from None
    except RecursionError:
        raise OptionError(f"--preprocess: {path} nests too deeply; a recipe is a flat list of keys") from None


def _read_text(path: Path, option: str) -> str:
    try:
        if path.stat().st_size > FILE_LIMIT_BYTES:
            raise OptionError(f"{option}: {path} is larger than {FILE_LIMIT_BYTES} bytes; name another file")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise OptionError(f"{option}: cannot read {path}: {error.strerror}; name another file") from None
    except UnicodeDecodeError:
        raise OptionError(f"{option}: {path} is not UTF-8 text; save it as UTF-8") from None


def _layout(name: str, shape: tuple[int, ...], *, takes_clips: bool) -> Layout:
    """Return the first layout in which the shape has 1 or 3 channels."""
    layouts: tuple[Layout, ...] = get_args(Layout)
    for layout in layouts:
        if len(layout) == len(shape) and (takes_clips or "T" not in layout) and shape[layout.index("C")] in (1, 3):
            return layout
    raise OptionError(
        f"--preprocess: input {name!r} of shape {list(shape)} takes no image; leave it out, and give inputs as .npy or .npz"
    )


def _extents(name: str, shape: tuple[int, ...], layout: Layout) -> dict[str, int]:
    """Return the size of each axis of the layout, of one image or one window of frames."""
    if len(shape) != len(layout) or shape[0] != 1:
        raise OptionError(
            f"--preprocess: input {name!r} of shape {list(shape)} takes no single image; use --input-shape for a batch of 1"
        )
    return dict(zip(layout, shape, strict=True))


def _short_side(choice: str, resize: int | str, size: tuple[int, int]) -> int | None:
    if resize == "stretch":
        return None
    if isinstance(resize, int):
        side = resize
    else:
        match = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", resize)
        if not match:
            raise OptionError(
                f'--preprocess {choice}: resize {resize!r}: give pixels, a factor such as "256/224", or "stretch"'
            )
        side = round(max(size) * int(match[1]) / int(match[2]))
    if side < max(size):
        raise OptionError(
            f"--preprocess {choice}: resize to {side} is smaller than the crop of {max(size)}; give a larger one"
        )
    return side
