"""Every bad input of a user ends in one line that says how to mend it, exit code 2, and no files left over.

The commands run as a user runs them. A full disk, ctrl-C and failures in between are in ``test_bundle`` and ``test_hypsc``.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.passes.planning.request import Request
from tests.compiler.conftest import Command, listing
from tests.compiler.onnxes import classifier, linear, model, node, referred, saved, value

Arguments = list[str]
Scene = Callable[[Path], Arguments]

NEWEST = onnx.defs.onnx_opset_version()
TO = ["--memory", "1GB", "-o", "bundle"]


def content(data: bytes) -> Scene:
    """Return a scene with a model file of these bytes."""

    def build(folder: Path) -> Arguments:
        (folder / "m.onnx").write_bytes(data)
        return ["compile", "m.onnx", *TO]

    return build


def proto(found: onnx.ModelProto, *arguments: str) -> Scene:
    """Return a scene with a model of this structure."""
    return lambda folder: ["compile", saved(folder / "m.onnx", found).name, *(arguments or TO)]


def external(entries: dict[str, object]) -> Scene:
    """Return a model whose weight reference has these entries; ``../w.bin`` holds the weights, ``out.bin`` links to it."""

    def build(folder: Path) -> Arguments:
        inside = folder / "inside"
        inside.mkdir()
        (folder / "w.bin").write_bytes(bytes(80_000))
        (inside / "short.bin").write_bytes(bytes(79_999))
        (inside / "out.bin").symlink_to(folder / "w.bin")
        saved(inside / "m.onnx", linear(referred("w", [200, 100], entries)))
        return ["compile", "inside/m.onnx", *TO]

    return build


def with_file(name: str, data: bytes | None, *arguments: str, source: onnx.ModelProto | None = None) -> Scene:
    """Return a good model with a file (or, without data, a folder) of this name next to it."""

    def build(folder: Path) -> Arguments:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)
        return proto(source or linear(), *arguments)(folder)

    return build


def custom(kind: str, domain: str) -> onnx.ModelProto:
    """Return a model of one operator."""
    odd = node(kind, "x", "y", domain=domain)
    return model([odd], [value("x", 1, 4)], [value("y", 1, 4)], domains=[domain] if domain else [])


RELU = [node("Relu", "x", "y")]
VALUES = [value("x", 1, 4)], [value("y", 1, 4)]
DYNAMIC = model(RELU, [value("x", 4, "N")], [value("y", 4, "N")])
DATA_DEPENDENT = model([node("NonZero", "x", "y")], VALUES[0], [value("y", 2, "n", kind=TensorProto.INT64)])
RECURSIVE = model(
    [node("F", "x", "y", domain="own")],
    *VALUES,
    functions=[
        helper.make_function("own", "F", ["a"], ["b"], [node("F", "a", "b", domain="own")], [helper.make_opsetid("own", 1)])
    ],
    domains=["own"],
)

MODELS: dict[str, tuple[Scene, tuple[str, ...]]] = {
    "missing": (lambda folder: ["compile", "m.onnx", *TO], ("m.onnx does not exist", "name an .onnx file")),
    "folder": (lambda folder: ["compile", ".", *TO], ("is a folder", "name an .onnx file")),
    "empty": (content(b""), ("m.onnx is empty", "export the model again")),
    "JPEG": (content(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(99)), ("m.onnx is no ONNX file", "export or copy it again")),
    "text": (content(b"not a model\n" * 99), ("m.onnx is no ONNX file", "export or copy it again")),
    "truncated": (content(classifier().SerializeToString()[:-9]), ("is cut short", "copy it again")),
    "hostile length": (content(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), ("no ONNX file or is cut short",)),
    "hostile nesting": (content(b"\x3a\x80\x80\x04" + b"\x0a\xfe\xff\x03" * 16_000), ("no ONNX file",)),
    "names that are no text": (
        content(linear().SerializeToString().replace(b"fc", b"\xff\xff")),
        ("no text", "export or copy"),
    ),
    "weight without its values": (
        content(linear().SerializeToString().replace(b"\x08\xc8\x01\x08\x64", b"\x08\xc9\x01\x08\x64")),
        ("weight 'w'", "its shape needs", "export it again"),
    ),
    "no network": (content(b"\x08\x08"), ("holds no network", "is it an ONNX model?")),
    "data missing": (external({"location": "none.bin"}), ("none.bin", "is missing", "copy it next to the model")),
    "data whose name has two lines": (external({"location": "a\nb\x1b[2J"}), ("a\\nb\\x1b[2J, which holds", "is missing")),
    "data in the parent": (
        external({"location": "../w.bin", "length": 80_000}),
        ("'../w.bin'", "outside the model's folder", "next to it"),
    ),
    "data anywhere": (external({"location": "/etc/passwd"}), ("'/etc/passwd'", "outside the model's folder", "next to it")),
    "data behind a link": (
        external({"location": "out.bin", "length": 80_000}),
        ("'out.bin'", "outside the model's folder", "next to it"),
    ),
    "data too short": (external({"location": "short.bin"}), ("short.bin is too short", "copy it again")),
    "custom operator": (
        proto(custom("Odd", "my.own")),
        ("'Odd'", "onnxruntime knows an operator", "export the model with standard operators"),
    ),
    "unknown operator": (proto(custom("Odd", "")), ("knows an operator 'Odd' in opset 17", "export the model")),
    "recursive function": (proto(RECURSIVE), ("cannot be inlined", "export it again")),
    "opset too old": (proto(model(RELU, *VALUES, opset=6)), ("uses opset 6", "convert it with onnx.version_converter")),
    "opset too new": (
        proto(model(RELU, *VALUES, opset=NEWEST + 1)),
        (f"opset {NEWEST + 1}", "convert it with", "another opset"),
    ),
    "dynamic input": (proto(DYNAMIC), ("input 'x' has a dynamic shape [4, N]", "--input-shape x:4,1")),
    "dynamic tensor": (
        proto(DATA_DEPENDENT),
        ("tensor 'y' (output of NonZero 'y') has no fixed shape", "export it with fixed shapes"),
    ),
    "input that does not exist": (proto(DYNAMIC, *TO, "--input-shape", "z:4,1"), ("names 'z'", "inputs are 'x'")),
    "huge input": (
        proto(DYNAMIC, *TO, "--input-shape", f"x:4,{2**60}"),
        ("larger than any device's memory", "--input-shape"),
    ),
    "budget no cut reaches": (
        proto(classifier(), "--memory", "20MB", "-o", "bundle"),
        ("to start, the budget is 20.0 MB; the smallest budget that works is",),
    ),
    "bundle exists": (
        with_file("bundle/manifest.json", b"{}", *TO),
        ("bundle exists and is not a bundle; name another folder with -o",),
    ),
    "folder exists": (
        with_file("bundle", None, *TO),
        ("bundle exists; replace it with --force, or name another folder with -o",),
    ),
    "file exists": (with_file("bundle", b"", *TO, "--force"), ("is not a bundle; name another folder with -o",)),
    "someone's folder": (
        with_file("bundle/thesis.tex", b"", *TO, "--force"),
        ("is not a bundle; name another folder with -o",),
    ),
    "no parent folder": (
        proto(linear(), *TO[:3], "none/bundle"),
        ("the folder none does not exist; create it, or name another",),
    ),
    "labels of another count": (
        with_file("l.txt", b"a\nb\n", *TO, "--labels", "l.txt", source=classifier()),
        ("l.txt has 2 lines, the model has 10 classes",),
    ),
    "labels missing": (proto(classifier(), *TO, "--labels", "l.txt"), ("--labels: cannot read l.txt: No such file",)),
    "preset unknown": (
        proto(classifier(), *TO, "--preprocess", "image"),
        ("did you mean 'imagenet'? use imagenet, imagenet-caffe,",),
    ),
    "preset for no image": (
        proto(linear(), *TO, "--preprocess", "imagenet"),
        ("takes no image; leave it out, and give inputs as .npy or .npz",),
    ),
    "preprocessing file damaged": (
        with_file("p.toml", b"scale = nan", *TO, "--preprocess", "p.toml", source=classifier()),
        ("p.toml: scale, mean or std exceeds float32",),
    ),
}


def one_line(command: str, result: Any, words: tuple[str, ...]) -> None:
    """Check that a command refused with one line that has these texts."""
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert re.fullmatch(rf"{command}: [^\n]+\n", result.stderr), result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(("scene", "words"), MODELS.values(), ids=MODELS.keys())
def test_compile(scene: Scene, words: tuple[str, ...], hypsc: Command, tmp_path: Path) -> None:
    arguments = scene(tmp_path)
    before = listing(tmp_path)
    one_line("hypsc", hypsc(*arguments, cwd=tmp_path), words)
    assert listing(tmp_path) == before


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bundle that takes images, and inputs that fit and that do not."""
    folder = tmp_path_factory.mktemp("kept")
    request = Request(budget_bytes=150_000_000, split="pooling", threads=2)
    path = saved(folder / "m.onnx", classifier())
    compile_file(
        Compilation(model=path, output=folder / "bundle", request=request, target_name="test", preprocess="imagenet")
    )
    Image.new("RGB", (64, 48), (200, 100, 50)).save(folder / "good.png")
    np.savez(folder / "good.npz", image=np.zeros((1, 3, 16, 16), np.float32))
    return folder


@pytest.fixture
def kit(kept: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of the bundle's folder, to be damaged."""
    yield shutil.copytree(kept, tmp_path / "kit")


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the manifest's data."""

    def damage(folder: Path) -> None:
        path = folder / "bundle" / "manifest.json"
        data = json.loads(path.read_bytes())
        change(data)
        path.write_text(json.dumps(data))

    return damage


def in_bundle(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Change the bundle's folder."""

    def damage(folder: Path) -> None:
        change(folder / "bundle")

    return damage


def swap(bundle: Path) -> None:
    """Swap two partitions."""
    first, second = sorted((bundle / "partitions").glob("*.onnx"))[:2]
    first.rename(bundle / "aside")
    second.rename(first)
    (bundle / "aside").rename(second)


def link(bundle: Path) -> None:
    """Move a partition's weights out of the bundle; leave a link."""
    (path, *_) = (bundle / "partitions").glob("*.weights")
    path.rename(bundle.parent / "elsewhere")
    path.symlink_to(bundle.parent / "elsewhere")


def flip(bundle: Path) -> None:
    """Change one byte in the middle of the weights."""
    (path, *_) = (bundle / "partitions").glob("*.weights")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


BUNDLES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no bundle": (in_bundle(shutil.rmtree), ("bundle is no bundle", "make one with 'hypsc compile'")),
    "no manifest": (
        in_bundle(lambda bundle: (bundle / "manifest.json").unlink()),
        ("it has no manifest.json", "hypsc compile"),
    ),
    "partition missing": (
        in_bundle(lambda bundle: (bundle / "partitions" / "00-pool1.onnx").unlink()),
        ("00-pool1.onnx is missing", "copy the bundle again, or compile the model again"),
    ),
    "partition changed": (
        in_bundle(lambda bundle: (bundle / "partitions" / "00-pool1.onnx").write_bytes(b"\x08\x08")),
        ("00-pool1.onnx holds 2 bytes, the manifest says", "copy the bundle again"),
    ),
    "weights changed": (in_bundle(flip), (".weights was changed", "copy the bundle again")),
    "partitions swapped": (in_bundle(swap), ("pool1.onnx", "copy the bundle again")),
    "weights outside": (in_bundle(link), ("leads out of the bundle; copy the bundle again, without links",)),
    "other version": (
        manifest(lambda data: data.update(version=2)),
        (
            "has format version 2, this hyps-run reads version 3",
            "compile the model again, or install the hyps that wrote it",
        ),
    ),
    "wrong type": (
        manifest(lambda data: data["steps"][1].update(peak_bytes="much")),
        ("manifest.json: Expected `int`, got `str` - at `$.steps[1].peak_bytes`", "compile the model again"),
    ),
    "field missing": (
        manifest(lambda data: data.pop("tensors")),
        ("missing required field `tensors`", "compile the model again"),
    ),
    "field unknown": (manifest(lambda data: data.update(price=3)), ("unknown field `price`", "compile the model again")),
    "path outside": (
        manifest(lambda data: data["steps"][0]["model"].update(path="partitions/../../m.onnx")),
        ("$.steps[0].model.path", "compile the model again"),
    ),
    "no JSON": (
        in_bundle(lambda bundle: (bundle / "manifest.json").write_bytes(b"\xff\x00")),
        ("manifest.json", "compile the model again"),
    ),
    "cut short": (
        in_bundle(lambda bundle: (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes()[:-200])),
        ("manifest.json: Input data was truncated", "compile the model again"),
    ),
}


@pytest.mark.parametrize(("damage", "words"), BUNDLES.values(), ids=BUNDLES.keys())
def test_run_a_damaged_bundle(damage: Callable[[Path], None], words: tuple[str, ...], hyps_run: Command, kit: Path) -> None:
    damage(kit)
    before = listing(kit)
    one_line("hyps-run", hyps_run("bundle", "good.png", "--save", "out.npz", cwd=kit), words)
    assert listing(kit) == before


def tensors(**arrays: Any) -> Callable[[Path], None]:
    """Return a change that writes an input file with these tensors."""
    return lambda folder: np.savez(folder / "x.npz", **arrays)


def data(content: bytes, name: str = "x.npz") -> Callable[[Path], None]:
    """Return a change that writes an input file of these bytes."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def half_a_picture(folder: Path) -> None:
    """Write a JPEG that is cut short."""
    Image.effect_noise((400, 300), 50).save(folder / "x.jpg")
    (folder / "x.npz").write_bytes((folder / "x.jpg").read_bytes()[:9_000])


def pickled(folder: Path) -> None:
    """Write a file that would run code when loaded."""
    stream = io.BytesIO()
    np.save(stream, np.array([{}, None]), allow_pickle=True)
    (folder / "x.npz").write_bytes(stream.getvalue())


INPUTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing": (
        lambda folder: None,
        ("x.npz does not exist; name an image, a .npy or .npz file, a folder, or - for stdin",),
    ),
    "no image": (data(b"just some text"), ("x.npz is not a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM picture",)),
    "empty": (data(b""), ("x.npz is not a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM picture",)),
    "half a picture": (half_a_picture, ("cannot read image x.npz",)),
    "empty folder": (lambda folder: (folder / "x.npz").mkdir(), ("x.npz holds no images and no .npy or .npz files",)),
    "wrong shape": (
        tensors(image=np.zeros((1, 3, 16, 15), np.float32)),
        ("input 'image' is float32[1, 3, 16, 15]; the bundle was compiled for float32[1, 3, 16, 16]",),
    ),
    "wrong type": (
        tensors(image=np.zeros((1, 3, 16, 16), np.float64)),
        ("input 'image' is float64[1, 3, 16, 16]; the bundle was compiled for float32[1, 3, 16, 16]",),
    ),
    "wrong name": (
        tensors(picture=np.zeros((1, 3, 16, 16), np.float32)),
        ("holds a tensor 'picture'; the model takes image",),
    ),
    "damaged npz": (data(b"PK\x03\x04" + bytes(50)), ("x.npz is a damaged .npz file",)),
    "damaged npy": (data(b"\x93NUMPY\x01\x00\xff\xff{"), ("x.npz is a damaged .npy file",)),
    "pickle": (pickled, ("input 'image' is object[2]; the bundle was compiled for float32",)),
}


@pytest.mark.parametrize(("write", "words"), INPUTS.values(), ids=INPUTS.keys())
def test_run_on_a_bad_input(write: Callable[[Path], object], words: tuple[str, ...], hyps_run: Command, kit: Path) -> None:
    write(kit)
    before = listing(kit)
    one_line("hyps-run", hyps_run("bundle", "x.npz", "--save", "out.npz", cwd=kit), words)
    assert listing(kit) == before


@pytest.mark.parametrize("program", ["inspect", "validate"])
def test_hypsc_on_a_damaged_bundle(program: str, hypsc: Command, kit: Path) -> None:
    flip(kit / "bundle")
    before = listing(kit)
    arguments = ["inspect", "bundle"] if program == "inspect" else ["validate", "m.onnx", "bundle"]
    one_line("hypsc", hypsc(*arguments, cwd=kit), (".weights was changed", "copy the bundle again"))
    assert listing(kit) == before


def test_validate_against_another_model(hypsc: Command, kit: Path) -> None:
    saved(kit / "other.onnx", linear())
    before = listing(kit)
    one_line("hypsc", hypsc("validate", "other.onnx", "bundle", cwd=kit), ("was compiled from this model",))
    assert listing(kit) == before


def test_good_input_still_runs(hyps_run: Command, kit: Path) -> None:
    """The good bundle runs, so that the tables above prove something."""
    for name in ("good.png", "good.npz"):
        result = hyps_run("bundle", name, "--json", cwd=kit)
        assert (result.returncode, result.stderr) == (0, "")
        assert len(json.loads(result.stdout)["top"]) == 5
