"""Files and folders become inputs, and tensors are read only if their header says what the model takes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hyps.runtime.bundle.manifest import Manifest, OutputRecord, TensorRecord
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.engine import InputTensors
from hyps.runtime.io.inputs import InputQueue, InputSource, read_tensors, sources

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOM_BYTES = 10_000_000
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
IDS = np.arange(4, dtype=np.int64).reshape(1, 4)


def npy(array: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def npz(compressed: bool = False, **arrays: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def zipped(content: bytes, name: str = "image.npy", kind: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return a .npy file's header without data."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.fixture
def text_model(manifest: Manifest) -> Manifest:
    """Return a manifest with two inputs and no preprocessing."""
    return msgspec.structs.replace(
        manifest,
        inputs=("image", "ids"),
        outputs=(OutputRecord(name="scores", probabilities=False),),
        tensors=manifest.tensors | {"ids": TensorRecord(dtype="int64", shape=(1, 4))},
        preprocess=None,
        labels=None,
    )


def read(content: bytes | Path, manifest: Manifest) -> InputTensors:
    return read_tensors(InputSource(name="x.npz", content=content), manifest, ROOM_BYTES)


def refusal(content: bytes | Path, manifest: Manifest) -> str:
    with pytest.raises(InputError) as caught:
        read(content, manifest)
    message = str(caught.value)
    assert "\n" not in message
    return message


WHOLE = {
    "npy": npy(IMAGE),
    "npy 2.0": npy(IMAGE, (2, 0)),
    "npy 3.0": npy(IMAGE, (3, 0)),
    "fortran order": npy(np.asfortranarray(IMAGE)),
    "big-endian": npy(IMAGE.astype(">f4")),
    "big-endian fortran order": npy(np.asfortranarray(IMAGE.astype(">f4"))),
    "npz": npz(image=IMAGE),
    "npz compressed": npz(compressed=True, image=IMAGE),
    "npz without suffix": zipped(npy(IMAGE), name="image"),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_tensors_are_read(manifest: Manifest, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tensor.bin"  # the content decides, not the name
    path.write_bytes(content)
    for found in (read(content, manifest), read(path, manifest)):
        assert list(found) == ["image"]
        assert found["image"].dtype == np.float32
        assert found["image"].dtype.isnative
        assert found["image"].flags.c_contiguous
        np.testing.assert_array_equal(found["image"], IMAGE)


def test_two_tensors_are_read_by_name(text_model: Manifest) -> None:
    found = read(npz(ids=IDS, image=IMAGE), text_model)
    assert sorted(found) == ["ids", "image"]
    np.testing.assert_array_equal(found["ids"], IDS)
    np.testing.assert_array_equal(found["image"], IMAGE)


def test_scalars_and_other_dtypes_are_read(text_model: Manifest) -> None:
    for value in (np.float16(2.5), np.bool_(True), np.int8(-3), np.float64(1e-300)):
        tensors = text_model.tensors | {"ids": TensorRecord(dtype=value.dtype.name, shape=())}
        model = msgspec.structs.replace(text_model, tensors=tensors)
        assert read(npz(ids=np.asarray(value), image=IMAGE), model)["ids"][()] == value


TAKES = "the bundle was compiled for float32[1, 3, 4, 4]"
WRONG = {
    "shape": (npy(IMAGE[:, :, :3]), f"input 'image' is float32[1, 3, 3, 4]; {TAKES}"),
    "rank": (npy(IMAGE[0]), f"input 'image' is float32[3, 4, 4]; {TAKES}"),
    "dtype": (npy(IMAGE.astype(np.float64)), f"input 'image' is float64[1, 3, 4, 4]; {TAKES}"),
    "shape in npz": (npz(image=IMAGE[0]), f"input 'image' is float32[3, 4, 4]; {TAKES}"),
    "name": (npz(picture=IMAGE), "x.npz holds a tensor 'picture'; the model takes image"),
    "one too many": (npz(image=IMAGE, ids=IDS), "x.npz holds a tensor 'ids'; the model takes image"),
    "objects": (
        npy(np.full((1, 3, 4, 4), None, object)),
        f"input 'image' is object[1, 3, 4, 4]; {TAKES}",
    ),
    "objects in npz": (
        npz(image=np.full((1, 3, 4, 4), None, object)),
        f"input 'image' is object[1, 3, 4, 4]; {TAKES}",
    ),
    "a record": (
        npy(np.zeros((1, 3, 4, 4), [("r", "f4")])),
        f"input 'image' is void32[1, 3, 4, 4]; {TAKES}",
    ),
    "enormous": (header("<f4", (10**6, 10**6)), f"input 'image' is float32[1000000, 1000000]; {TAKES}"),
    "enormous in npz": (
        zipped(header("<f4", (10**9, 10**9))),
        f"input 'image' is float32[1000000000, 1000000000]; {TAKES}",
    ),
    "no data": (header("<f4", (1, 3, 4, 4)), "x.npz is a damaged .npy file: "),
    "half the data": (npy(IMAGE)[:-50], "x.npz is a damaged .npy file: "),
    "half the header": (npy(IMAGE)[:30], "x.npz is a damaged .npy file: "),
    "another version": (b"\x93NUMPY\x09\x00" + npy(IMAGE)[8:], "x.npz is a damaged .npy file: "),
    "no header": (npy(IMAGE).replace(b"descr", b"\0\0\0\0\0"), "x.npz is a damaged .npy file: "),
    "half the zip": (npz(image=IMAGE)[:200], "x.npz is a damaged .npz file: File is not a zip file"),
    "text in npz": (zipped(b"hello"), "x.npz is a damaged .npy file: "),
}


@pytest.mark.parametrize(("content", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_tensors_are_refused(manifest: Manifest, content: bytes, expected: str) -> None:
    message = refusal(content, manifest)
    assert message.startswith(expected) if expected.endswith((": ", TAKES)) else message == expected


def test_objects_are_never_unpickled(manifest: Manifest, tmp_path: Path) -> None:
    """They are not, even where the manifest says that the model takes objects."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    content = npy(np.full((1, 3, 4, 4), Trap(), object))
    tensors = manifest.tensors | {"image": TensorRecord(dtype="object", shape=(1, 3, 4, 4))}
    message = refusal(content, msgspec.structs.replace(manifest, tensors=tensors))
    assert message == "x.npz holds Python objects; give numbers"
    assert not (tmp_path / "sprung").exists()


def test_a_changed_byte_in_an_npz_is_noticed(manifest: Manifest) -> None:
    content = bytearray(npz(image=IMAGE))
    content[content.index(IMAGE.tobytes()) + 7] ^= 1
    assert "Bad CRC-32" in refusal(bytes(content), manifest)


def test_a_damaged_compressed_npz_is_refused(manifest: Manifest) -> None:
    content = bytearray(npz(compressed=True, image=IMAGE))
    content[60:120] = bytes(60)
    assert refusal(bytes(content), manifest).startswith("x.npz is a damaged .np")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_that_cannot_be_unpacked_piece_by_piece_is_refused(manifest: Manifest, kind: int) -> None:
    content = zipped(npy(IMAGE) + bytes(20_000_000), kind=kind)
    assert refusal(content, manifest) == "x.npz is compressed by a method that numpy does not use; save it with numpy.savez"


def test_a_zip_bomb_is_not_inflated(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of zeros follow the right header: only the bytes that the shape needs are read."""
    content = zipped(npy(IMAGE) + bytes(20_000_000), kind=zipfile.ZIP_DEFLATED)
    asked: list[int] = []
    original = zipfile.ZipExtFile.read

    def watched(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        asked.append(-1 if n is None else n)
        return original(self, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    np.testing.assert_array_equal(read(content, manifest)["image"], IMAGE)
    assert asked
    assert min(asked) >= 0
    assert max(asked) <= IMAGE.nbytes


@pytest.mark.parametrize(
    ("content", "needed"),
    [(npy(IMAGE), 192), (npz(image=IMAGE), 192), (npy(np.asfortranarray(IMAGE)), 384)],
    ids=["npy", "npz", "fortran order"],
)
def test_tensors_are_read_only_into_the_room_there_is(manifest: Manifest, content: bytes, needed: int) -> None:
    source = InputSource(name="x", content=content)
    np.testing.assert_array_equal(read_tensors(source, manifest, needed)["image"], IMAGE)
    with pytest.raises(InputError) as caught:
        read_tensors(source, manifest, needed - 1)
    assert str(caught.value) == (
        "tensor 'image' of x needs 0.001 MB to read, 0.000 MB are left of the budget; save it in C order, give a file, or "
        "compile with more memory"
    )


def test_several_tensors_share_the_room(text_model: Manifest) -> None:
    source = InputSource(name="x", content=npz(image=IMAGE, ids=IDS))
    assert len(read_tensors(source, text_model, IMAGE.nbytes + IDS.nbytes)) == 2
    with pytest.raises(InputError, match="tensor 'ids' of x needs"):
        read_tensors(source, text_model, IMAGE.nbytes + IDS.nbytes - 1)


def test_tensors_of_many_pieces_are_whole(manifest: Manifest) -> None:
    """They are read a megabyte at a time."""
    large = np.random.default_rng(0).standard_normal((1, 3, 400, 500)).astype(np.float32)
    tensors = manifest.tensors | {"image": TensorRecord(dtype="float32", shape=large.shape)}
    model = msgspec.structs.replace(manifest, tensors=tensors)
    for content in (npy(large), npz(image=large), npz(compressed=True, image=large)):
        np.testing.assert_array_equal(read(content, model)["image"], large)
    assert refusal(npy(large)[:-1], model) == ("x.npz is a damaged .npy file: it ends after 2399999 of 2400000 bytes")


def test_an_encrypted_npz_is_refused(manifest: Manifest) -> None:
    content = bytearray(npz(image=IMAGE))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    assert "encrypted" in refusal(bytes(content), manifest)


SEEDS = [content for name, content in WHOLE.items() if not name.startswith("big")]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_tensors_are_read_or_refused(data: st.DataObject) -> None:
    manifest = FUZZED
    seed = data.draw(st.sampled_from(SEEDS))
    content = bytearray(seed)
    index = st.integers(4, 200) | st.integers(len(seed) - 150, len(seed) - 1)  # the headers and the zip's directory
    for place, value in data.draw(st.lists(st.tuples(index, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    try:
        found = read(bytes(content), manifest)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all((array.dtype, array.shape) == (IMAGE.dtype, IMAGE.shape) for array in found.values())


#: Hypothesis does not allow fixtures of function scope.
FUZZED = msgspec.json.decode(
    b"""{"version": 3, "created_by": "", "model": {"name": "", "sha256": "%s", "parameters": 0, "weight_bytes": 0},
    "target": {"name": "", "threads": 1}, "budget_bytes": 1, "huge_pages": false, "exact": true,
    "inputs": ["image"],
    "outputs": [{"name": "image", "probabilities": false}],
    "tensors": {"image": {"dtype": "float32", "shape": [1, 3, 4, 4]}},
    "steps": [{"name": "s", "model": {"path": "partitions/s.onnx", "size_bytes": 0, "sha256": "%s"}, "weights": null,
    "inputs": [], "outputs": [], "live": ["image"], "operators": [],
    "multiply_adds": 0, "weight_bytes": 0, "activation_bytes": 0,
    "alone_bytes": 0, "peak_bytes": 0, "pinned_bytes": 0, "ahead_bytes": 0,
    "session": {"stays_open": false, "reuses_memory": true}}],
    "preprocess": {"size": [4, 4]}}"""
    % (b"0" * 64, b"0" * 64),
    type=Manifest,
)


def test_one_tensor_does_not_feed_two_inputs(text_model: Manifest) -> None:
    assert refusal(npy(IMAGE), text_model) == "x.npz holds one tensor, the model takes 2; give an .npz file"


def test_a_bundle_without_preprocessing_takes_no_image(text_model: Manifest) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    expected = "x.npz is not a .npy or .npz file, and this bundle takes no images: compile it with --preprocess"
    assert refusal(stream.getvalue(), text_model) == expected
    assert refusal(b"", text_model) == expected


def test_an_image_becomes_the_models_input(manifest: Manifest) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    np.testing.assert_array_equal(read(stream.getvalue(), manifest)["image"][0], pixels.transpose(2, 0, 1))


def test_tensors_need_no_pillow(manifest: Manifest, tmp_path: Path) -> None:
    """Pillow costs memory that a model without images may not have."""
    (tmp_path / "x.npy").write_bytes(npy(IMAGE))
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    script = """
import sys, msgspec
from pathlib import Path
from hyps.runtime.io.inputs import read_tensors, sources
from hyps.runtime.bundle.manifest import Manifest
manifest = msgspec.json.decode(Path(sys.argv[1], "manifest.json").read_bytes(), type=Manifest)
(source,) = sources([sys.argv[1] + "/x.npy"])
read_tensors(source, manifest, 10**7)
print("PIL" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# Sources.


def names(*arguments: str | Path) -> list[str]:
    return [source.name for source in sources(map(str, arguments))]


def test_folders_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.npz", "d.npy", "10.webp", "9.webp", "notes.txt", "e.png.part"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = [str(tmp_path / name) for name in ("10.webp", "9.webp", "a.JPG", "b.png", "c.npz", "d.npy")]
    assert names(tmp_path) == expected
    assert names(tmp_path / "c.npz", tmp_path) == [str(tmp_path / "c.npz"), *expected]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError) as caught:
        names(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no images and no .npy or .npz files"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        names(tmp_path / "gone.png")
    assert str(caught.value) == (
        f"{tmp_path / 'gone.png'} does not exist; name an image, a .npy or .npz file, a folder, or - for stdin"
    )


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        names("x" * 5000)
    assert str(caught.value) == f"cannot read {'x' * 5000}: File name too long"


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbid)
    with pytest.raises(InputError) as caught:
        names(tmp_path)
    assert str(caught.value) == f"cannot read {tmp_path}: Permission denied"


def test_a_file_that_cannot_be_read_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone", manifest) == "cannot read x.npz: No such file or directory"
    assert refusal(tmp_path, manifest) == "cannot read x.npz: Is a directory"


def test_a_name_that_is_no_text_is_still_a_file(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.npy")
    Path(path).touch()
    assert names(path) == [f"{tmp_path}/caf\ufffd.npy"]
    assert names(tmp_path) == [f"{tmp_path}/caf\ufffd.npy"]


def test_standard_input_is_bounded(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(bytes(101))

    monkeypatch.setattr(sys, "stdin", Stdin)
    (source,) = sources(["-"])
    with pytest.raises(InputError, match=r"standard input is larger than 0\.000 MB; give a file instead"):
        source.read(manifest, lambda: 100)


def test_standard_input_is_read_once_and_again_after_making_room(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are kept where the tensor did not fit, since standard input cannot be read twice."""
    content = npy(IMAGE)

    class Stdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Stdin)
    (source,) = sources(["-"])
    rooms = iter([len(content), IMAGE.nbytes - 1])
    with pytest.raises(RoomError):
        source.read(manifest, lambda: next(rooms))
    assert Stdin.buffer.read() == b""
    np.testing.assert_array_equal(source.read(manifest, lambda: IMAGE.nbytes)["image"], IMAGE)


def test_a_queue_keeps_no_reference_to_an_input_it_gave_away() -> None:
    inputs = [InputSource(name=str(number), content=b"") for number in range(3)]
    waiting = InputQueue(inputs)
    before = sys.getrefcount(inputs[0])
    assert len(waiting) == 3
    next(waiting)
    assert (len(waiting), sys.getrefcount(inputs[0])) == (2, before - 1)
    assert [source.name for source in waiting] == ["1", "2"]


def test_standard_input_takes_images_and_tensors(cifar_bundle: Path, photograph: Path, hyps_run: Run) -> None:
    by_name = hyps_run(cifar_bundle, photograph)
    piped = hyps_run(cifar_bundle, "-", stdin=photograph.read_bytes())
    assert piped.returncode == 0
    lines, expected = piped.stdout.splitlines(), by_name.stdout.splitlines()
    assert lines[0] == "standard input"
    assert lines[1:6] == expected[1:6]
    tensor = np.zeros((1, 3, 32, 32), np.float32)
    for content in (npz(image=tensor), npy(tensor)):
        assert hyps_run(cifar_bundle, "-", stdin=content).stdout.startswith("standard input\n")
    refused = hyps_run(cifar_bundle, "-", stdin=npz(image=tensor[0]))
    problem = "input 'image' is float32[3, 32, 32]; the bundle was compiled for float32[1, 3, 32, 32]"
    assert refused.stderr == f"hyps-run: {problem}; give it that shape\n"
    assert refused.returncode == 2
    assert hyps_run(cifar_bundle, "-").returncode == 2
