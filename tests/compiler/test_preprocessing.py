"""Resolve presets and files for a model's own input, or refuse them in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from hyps.compiler.errors import OptionError
from hyps.compiler.preprocessing import FILE_LIMIT_BYTES, PRESETS, read_labels, resolve_preprocess
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import to_tensor

NCHW = TensorRecord(dtype="float32", shape=(1, 3, 224, 224))
NHWC = TensorRecord(dtype="float32", shape=(1, 224, 224, 3))
GREY = TensorRecord(dtype="float32", shape=(1, 1, 28, 28))
BYTES = TensorRecord(dtype="uint8", shape=(1, 240, 320, 3))
CIFAR = TensorRecord(dtype="float32", shape=(1, 3, 32, 32))

#: By preset: the short side before a crop to 224, the order of colours, and the published values of pixel (10, 20, 30).
PUBLISHED: dict[str, tuple[int | None, str, list[float]]] = {
    "imagenet": (256, "RGB", [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]),
    "imagenet-caffe": (256, "BGR", [30 - 104, 20 - 117, 10 - 123]),
    "tf": (256, "RGB", [10 / 127.5 - 1, 20 / 127.5 - 1, 30 / 127.5 - 1]),
    "cifar10": (224, "RGB", [(10 / 255 - 0.4914) / 0.2470, (20 / 255 - 0.4822) / 0.2435, (30 / 255 - 0.4465) / 0.2616]),
    "raw": (None, "RGB", [10, 20, 30]),
}


def refusal(choice: str | Path, record: TensorRecord = NCHW) -> str:
    """Return the message about a choice that does not fit, which must be one line."""
    with pytest.raises(OptionError) as caught:
        resolve_preprocess(str(choice), "x", record)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """Write a preprocessing file."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_every_preset_is_tested() -> None:
    assert PUBLISHED.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", PUBLISHED)
@pytest.mark.parametrize(("record", "layout"), [(NCHW, "NCHW"), (NHWC, "NHWC")], ids=["NCHW", "NHWC"])
def test_preset(preset: str, record: TensorRecord, layout: str) -> None:
    """The runtime turns one colour into the values of the preset's source."""
    side, colour, expected = PUBLISHED[preset]
    found = resolve_preprocess(preset, "x", record)
    assert (found.layout, found.colour, found.resize, found.dtype, found.size) == (
        layout,
        colour,
        side,
        "float32",
        (224, 224),
    )
    values = to_numpy(to_tensor(Image.new("RGB", (300, 400), (10, 20, 30)), found))
    assert values.shape == record.shape
    pixel = values[0, :, 100, 100] if layout == "NCHW" else values[0, 100, 100, :]
    np.testing.assert_allclose(pixel, expected, rtol=1e-5)


@pytest.mark.parametrize("preset", ["tf", "raw"])
def test_preset_on_grey(preset: str) -> None:
    found = resolve_preprocess(preset, "x", GREY)
    assert (found.colour, found.size, found.layout) == ("L", (28, 28), "NCHW")
    assert to_tensor(Image.new("L", (50, 40), 200), found).shape == GREY.shape


@pytest.mark.parametrize(
    ("preset", "problem"),
    [
        ("imagenet", "mean does not fit; give one number or 1"),
        ("cifar10", "mean does not fit; give one number or 1"),
        ("imagenet-caffe", "colour BGR does not fit input 'x' with 1 channels"),
    ],
)
def test_preset_that_has_no_grey(preset: str, problem: str) -> None:
    assert problem in refusal(preset, GREY)


def test_preset_on_bytes() -> None:
    found = resolve_preprocess("raw", "x", BYTES)
    assert (found.dtype, found.size, found.layout) == ("uint8", (240, 320), "NHWC")
    assert to_numpy(to_tensor(Image.new("RGB", (640, 480), (1, 2, 255)), found))[0, 0, 0].tolist() == [1, 2, 255]


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"raw"}))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_preset_on_bytes_that_would_round_everything_away(preset: str, dtype: str) -> None:
    message = refusal(preset, msgspec.structs.replace(NCHW, dtype=dtype))
    assert message == f"--preprocess {preset}: input 'x' takes integers, {dtype}; use raw, or a .toml file"


def test_preset_on_half_floats() -> None:
    assert resolve_preprocess("tf", "x", msgspec.structs.replace(NCHW, dtype="float16")).dtype == "float16"


def test_short_side_of_a_wide_input() -> None:
    """The crop must lie within the picture, so the factor is one of the longer side."""
    wide = TensorRecord(dtype="float32", shape=(1, 3, 240, 320))
    assert resolve_preprocess("imagenet", "x", wide).resize == round(320 * 256 / 224)
    assert resolve_preprocess("cifar10", "x", CIFAR).resize == 32


def test_crop_of_a_wide_input_lies_within_the_picture(recipe: Any) -> None:
    """A portrait's short side is its width: it must be as long as the crop is wide."""
    message = refusal(recipe("resize = 319"), TensorRecord(dtype="float32", shape=(1, 3, 240, 320)))
    assert "resize to 319 is smaller than the crop of 320" in message


def test_whole_file(recipe: Any) -> None:
    path = recipe(
        'size = [224, 224]\nresize = 300\ncrop = "centre"\ninterpolation = "lanczos"\ncolour = "BGR"\nscale = 0.5\n'
        'mean = [1, 2.5, 3]\nstd = [4.0]\nlayout = "NCHW"\ndtype = "float32"\n'
    )
    assert resolve_preprocess(str(path), "x", NCHW) == Preprocess(
        size=(224, 224),
        resize=300,
        interpolation="lanczos",
        colour="BGR",
        scale=0.5,
        mean=(1.0, 2.5, 3.0),
        std=(4.0,),
        layout="NCHW",
        dtype="float32",
    )


@pytest.mark.parametrize("text", ["", "\ufeff", "# nothing\r\n"], ids=["empty", "byte order mark", "Windows"])
def test_what_a_file_leaves_out_follows_from_the_input(text: str, recipe: Any) -> None:
    assert resolve_preprocess(str(recipe(text)), "x", BYTES) == resolve_preprocess("raw", "x", BYTES)


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("resize = 224", 224),
        ('resize = "300/224"', 300),
        ('resize = "stretch"', None),
        ('crop = "none"', None),
    ],
)
def test_resize(text: str, side: int | None, recipe: Any) -> None:
    assert resolve_preprocess(str(recipe(text)), "x", NCHW).resize == side


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scale 1", "Expected '=' after a key"),
        ("scale = 'a'", "Expected `float`, got `str` - at `$.scale`"),
        ("scale = true", "Expected `float`, got `bool` - at `$.scale`"),
        ("scale = nan", "scale, mean or std exceeds float32; give finite numbers up to 3.4e+38"),
        ("mean = [0.0, inf, 0.0]", "give finite numbers"),
        ("std = [-inf]", "give finite numbers"),
        ("scale = 1e39", "give finite numbers"),
        ("std = [0]", "no std of 0"),
        ("std = [1, -0.0, 1]", "no std of 0"),
        ("std = [1e-45]", "no std of 0"),
        ("mean = []", "mean does not fit; give one number or 3"),
        ("mean = [1, 2]", "mean does not fit; give one number or 3"),
        ("std = [1, 2, 3, 4]", "std does not fit; give one number or 3"),
        ("size = [224]", "Expected `array` of length 2, got 1 - at `$.size`"),
        ("size = [224, 225]", "size (224, 225) is not that of input 'x'; set size = [224, 224]"),
        ("size = [0, 0]", "size (0, 0) is not that of input 'x'"),
        ("resize = 223", "resize to 223 is smaller than the crop of 224"),
        ("resize = 0", "resize to 0 is smaller"),
        ("resize = -256", "resize to -256 is smaller"),
        ('resize = "223/224"', "resize to 223 is smaller"),
        ('resize = "256"', 'resize \'256\': give pixels, a factor such as "256/224", or "stretch"'),
        ('resize = "1/0"', "a factor such as"),
        ('resize = "123456/1"', "a factor such as"),
        ("resize = 1.5", "Expected `int | str`, got `float` - at `$.resize`"),
        ('resize = 300\ncrop = "none"', 'a resize without a crop changes the picture\'s size; set resize = "stretch"'),
        ('crop = "left"', "Invalid enum value 'left' - at `$.crop`"),
        ('interpolation = "cubic"', "Invalid enum value 'cubic' - at `$.interpolation`"),
        ('colour = "rgb"', "Invalid enum value 'rgb' - at `$.colour`"),
        ('colour = "L"', "colour L does not fit input 'x' with 3 channels"),
        ('layout = "NHWC"', "input 'x' has 224 channels as NHWC; an image has 1 or 3"),
        ('layout = "CHW"', "Invalid enum value 'CHW' - at `$.layout`"),
        ('dtype = "uint8"', "dtype uint8 is not that of input 'x'; set dtype = \"float32\""),
        ('dtype = "float64"', "Invalid enum value 'float64' - at `$.dtype`"),
        ("color = 'RGB'", "Object contains unknown field `color`"),
        ("scale = " + "9" * 5_000, "Exceeds the limit"),
        ("a = " + "[" * 60_000, "nests too deeply"),
        (b"scale = '\xff'", "is not UTF-8 text"),
        (b"\x00\x01", "Invalid statement"),
        (b"#" * (FILE_LIMIT_BYTES + 1), f"is larger than {FILE_LIMIT_BYTES} bytes"),
    ],
    ids=lambda case: str(case)[:20],
)
def test_wrong_file(text: str | bytes, problem: str, recipe: Any) -> None:
    message = refusal(recipe(text))
    assert problem in message
    assert message.startswith("--preprocess")
    assert "recipe.toml" in message


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        (
            "image-net",
            "--preprocess: there is no preset 'image-net'; did you mean 'imagenet'? use imagenet, imagenet-caffe, tf, "
            "cifar10, raw, or a .toml file",
        ),
        ("", "--preprocess: there is no preset ''; use imagenet"),
        ("none.toml", "--preprocess: cannot read none.toml: No such file or directory"),
    ],
)
def test_unknown_choice(choice: str, problem: str) -> None:
    assert problem in refusal(choice)


def test_folder_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "folder.toml"
    path.mkdir()
    assert refusal(path) == f"--preprocess: cannot read {path}: Is a directory; name another file"


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((1, 1000), "input 'x' of shape [1, 1000] takes no image; leave it out, and give inputs as .npy or .npz"),
        ((3, 224, 224), "takes no image"),
        ((), "input 'x' of shape [] takes no image"),
        ((1, 4, 224, 224), "takes no image"),
        ((1, 224, 224, 2), "takes no image"),
        ((1, 3, 16, 224, 224), "takes no image"),
        ((8, 3, 224, 224), "takes no single image; use --input-shape for a batch of 1"),
    ],
    ids=str,
)
def test_input_that_is_no_image(shape: tuple[int, ...], problem: str) -> None:
    assert problem in refusal("raw", TensorRecord(dtype="float32", shape=shape))


def test_layout_of_a_file_does_not_make_an_image(recipe: Any) -> None:
    assert "takes no single image" in refusal(recipe('layout = "NCHW"'), TensorRecord(dtype="float32", shape=(1, 1000)))


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_dtype_that_no_image_has(dtype: str) -> None:
    message = refusal("raw", TensorRecord(dtype=dtype, shape=(1, 3, 8, 8)))
    assert message.startswith("--preprocess raw does not fit input 'x': Invalid enum value")


class TestLabels:
    """Class names by line."""

    @pytest.mark.parametrize(
        ("text", "labels"),
        [
            ("cat\ndog\nfrog\n", ("cat", "dog", "frog")),
            ("cat\r\ndog\r\nfrog", ("cat", "dog", "frog")),
            ("\ufeffcat\ndog\nfrog\n", ("cat", "dog", "frog")),
            ("n01440764 tench, Tinca tinca\nn01443537  goldfish\nn1234 short id\n", ("tench", "goldfish", "n1234 short id")),
            ("  cat \nGroßer Hund, Dogge\nécureuil\n", ("cat", "Großer Hund", "écureuil")),
            ("\n\n\n", ("", "", "")),
        ],
        ids=["lines", "Windows", "byte order mark", "WordNet", "other letters", "empty"],
    )
    def test_read(self, text: str, labels: tuple[str, ...], tmp_path: Path) -> None:
        path = tmp_path / "labels.txt"
        path.write_bytes(text.encode())
        assert read_labels(path, 3) == labels

    def test_imagenet(self, shared_data: Path) -> None:
        labels = read_labels(shared_data / "imagenet_labels.txt", 1_000)
        assert (labels[0], labels[281], labels[999]) == ("tench", "tabby", "toilet tissue")

    @pytest.mark.parametrize(("lines", "classes"), [(2, 3), (4, 3), (0, 3), (1_000, 1_001)])
    def test_wrong_count(self, lines: int, classes: int, tmp_path: Path) -> None:
        path = tmp_path / "labels.txt"
        path.write_text("label\n" * lines)
        with pytest.raises(OptionError) as caught:
            read_labels(path, classes)
        assert f"--labels: {path} has {lines} lines, the model has {classes} classes; give one line per class" in str(
            caught.value
        )

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(b"\xff\xd8\xff\xe0", "is not UTF-8 text"), (bytes(FILE_LIMIT_BYTES + 1), "is larger than")],
        ids=["picture", "large"],
    )
    def test_no_labels(self, content: bytes, problem: str, tmp_path: Path) -> None:
        path = tmp_path / "labels.txt"
        path.write_bytes(content)
        with pytest.raises(OptionError, match=problem):
            read_labels(path, 3)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "none.txt"
        with pytest.raises(OptionError) as caught:
            read_labels(path, 3)
        assert str(caught.value) == f"--labels: cannot read {path}: No such file or directory; name another file"

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="Is a directory"):
            read_labels(tmp_path, 3)
