"""``hyps-run`` as its user sees it: a process, its output, its exit code and its memory."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.execution.session import session_options, to_numpy
from hyps.runtime.io.files import save
from hyps.runtime.io.images import read_image
from tests.waiting import PATIENCE_S

Run = Callable[..., subprocess.CompletedProcess[str]]
CIFAR10 = Preprocess(size=(32, 32), resize=32, scale=1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
TIMING = r"  \d+\.\d{3} s, peak memory \d+\.\d MB of a budget of 72\.0 MB"


@pytest.fixture(scope="module")
def labels(root: Path) -> list[str]:
    return (root / "models/cifar10_labels.txt").read_text().split()


def whole(root: Path, tensor: NDArray[Any], threads: int) -> NDArray[Any]:
    """Return the whole model's scores under a bundle's session options; their last bits depend on the threads."""
    session = ort.InferenceSession(root / "models/cifar10_vgg.onnx", session_options(threads))
    scores: NDArray[Any] = session.run(["scores"], {"image": tensor})[0]
    return scores


@pytest.fixture(scope="module")
def expected(root: Path, photograph: Path) -> NDArray[Any]:
    return whole(root, to_numpy(read_image(photograph, "", CIFAR10, 10**8)), 1)


@pytest.fixture
def copied(tmp_path: Path, cifar_bundle: Path) -> Path:
    """Return a copy of a bundle, to damage."""
    return shutil.copytree(cifar_bundle, tmp_path / "copied")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> Path:
    path = tmp_path_factory.mktemp("damaged") / "damaged.jpg"
    path.write_bytes(photograph.read_bytes()[:-400])
    return path


def test_text(cifar_bundle: Path, photograph: Path, hyps_run: Run, expected: NDArray[Any], labels: list[str]) -> None:
    done = hyps_run(cifar_bundle, photograph)
    assert (done.returncode, done.stderr) == (0, "")
    name, *rows, last = done.stdout.splitlines()
    assert name == str(photograph)
    probabilities = np.exp(expected[0]) / np.exp(expected[0]).sum()
    best = np.argsort(-probabilities)[:5]
    assert rows == [f"  {probabilities[index]:7.2%}  {index:5d}  {labels[index]}" for index in best]
    assert_matches(TIMING, last)


def assert_matches(pattern: str, line: str) -> None:
    assert re.fullmatch(pattern, line), line


def test_json(cifar_bundle: Path, photograph: Path, hyps_run: Run, expected: NDArray[Any], labels: list[str]) -> None:
    done = hyps_run(cifar_bundle, photograph, photograph, "--json", "--top", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        result = json.loads(line)
        assert list(result) == ["input", "top", "outputs", "latency_s", "peak_rss_bytes", "budget_bytes"]
        assert result["input"] == str(photograph)
        best = np.argsort(-expected[0])[:3]
        assert [list(scored) for scored in result["top"]] == [["index", "label", "score"]] * 3
        assert [scored["index"] for scored in result["top"]] == best.tolist()
        assert [scored["label"] for scored in result["top"]] == [labels[index] for index in best]
        assert result["outputs"] == {"scores": [1, 10]}
        assert 0 < result["latency_s"] < 10
        assert result["budget_bytes"] == 72_000_000
        assert 30_000_000 < result["peak_rss_bytes"] <= result["budget_bytes"]


@pytest.mark.parametrize(("count", "rows"), [("1", 1), ("10", 10), ("999", 10)])
def test_top(cifar_bundle: Path, photograph: Path, hyps_run: Run, count: str, rows: int) -> None:
    done = hyps_run(cifar_bundle, photograph, "--top", count)
    assert len(done.stdout.splitlines()) == rows + 2


def test_repeat_reports_the_median(cifar_bundle: Path, photograph: Path, hyps_run: Run) -> None:
    done = hyps_run(cifar_bundle, photograph, "--repeat", "3", "--top", "1")
    assert_matches(TIMING.replace(" s,", r" s \(median of 3\),"), done.stdout.splitlines()[-1])


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_saved_outputs_are_the_whole_models_bit_for_bit(
    cifar_bundle: Path, photograph: Path, hyps_run: Run, root: Path, tmp_path: Path, threads: int
) -> None:
    path = tmp_path / "outputs.npz"
    path.write_text("what was there before is replaced")
    done = hyps_run(cifar_bundle, photograph, "--save", path, "--threads", str(threads))
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(path) as saved:
        assert saved.files == ["scores"]
        assert saved["scores"].dtype == np.float32
        tensor = to_numpy(read_image(photograph, "", CIFAR10, 10**8))
        np.testing.assert_array_equal(saved["scores"], whole(root, tensor, threads))
    assert [file.name for file in tmp_path.iterdir()] == ["outputs.npz"]


def test_what_was_saved_can_be_run_on(cifar_bundle: Path, hyps_run: Run, root: Path, tmp_path: Path) -> None:
    """Tensors go in and come out by name."""
    tensor = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "in.npz", image=tensor)
    done = hyps_run(cifar_bundle, tmp_path / "in.npz", "--save", tmp_path / "out.npz", "--threads", "2")
    assert done.returncode == 0
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["scores"], whole(root, tensor, 2))


PROFILE_HEAD = ["step,", "ms", "wait", "open", "run", "copy", "close", "hash", "faults", "major", "read", "resident"]


def test_profile(cifar_bundle: Path, photograph: Path, hyps_run: Run) -> None:
    text = hyps_run(cifar_bundle, photograph, "--profile")
    assert text.stderr == ""
    head, step, total = text.stdout.splitlines()[-3:]
    assert head.split() == PROFILE_HEAD
    for name, line in (("00-scores", step), ("all", total)):
        assert_matches(rf"{name}( +\d+\.\d){{6}}( +[\d,]+){{2}}( +\d+\.\d+ MB){{2}}", line)
    data = hyps_run(cifar_bundle, photograph, "--profile", "--json", "--repeat", "2")
    assert len(data.stdout.splitlines()) == 1
    assert data.stderr.splitlines()[0].split() == PROFILE_HEAD
    assert len(data.stderr.splitlines()) == 3


def test_a_folder_is_run_file_by_file(cifar_bundle: Path, photograph: Path, hyps_run: Run, tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Image.open(photograph).save(tmp_path / name)
    done = hyps_run(cifar_bundle, tmp_path, "--json")
    found = [json.loads(line)["input"] for line in done.stdout.splitlines()]
    assert found == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_a_damaged_input_does_not_stop_the_others(
    cifar_bundle: Path, photograph: Path, damaged: Path, hyps_run: Run
) -> None:
    done = hyps_run(cifar_bundle, photograph, damaged, photograph, "--json")
    assert done.returncode == 2
    assert [json.loads(line)["input"] for line in done.stdout.splitlines()] == [str(photograph)] * 2
    assert done.stderr.startswith(f"hyps-run: cannot read image {damaged}: image file is truncated")


def test_a_picture_larger_than_the_budget_is_refused_and_a_jpeg_is_scaled(
    cifar_bundle: Path, hyps_run: Run, tmp_path: Path
) -> None:
    picture = Image.new("RGB", (5000, 4000), "#204080")
    picture.save(tmp_path / "large.png", compress_level=1)
    picture.save(tmp_path / "large.jpg")
    done = hyps_run(cifar_bundle, tmp_path / "large.png", tmp_path / "large.jpg", "--json")
    assert done.returncode == 2
    assert f"image {tmp_path / 'large.png'} of 5000 x 4000 pixels needs 80.7 MB to decode" in done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["peak_rss_bytes"] <= 72_000_000


def test_pictures_as_large_as_the_room_keep_within_the_budget(cifar_bundle: Path, hyps_run: Run, tmp_path: Path) -> None:
    """Of ever larger pictures, the largest accepted one comes close to the budget, and none exceeds it."""
    paths = []
    for side in range(600, 2400, 200):
        path = tmp_path / f"{side}.png"
        Image.new("RGB", (side, side), "#204080").save(path, compress_level=1)
        paths.append(path)
    done = hyps_run(cifar_bundle, *paths, "--json")
    peaks = [json.loads(line)["peak_rss_bytes"] for line in done.stdout.splitlines()]
    assert 1 <= len(peaks) <= len(paths)
    assert max(peaks) <= 72_000_000
    assert "exceeded the budget" not in done.stderr


def test_the_bytes_of_standard_input_are_dropped_once_they_are_read(
    cifar_bundle: Path, photograph: Path, hyps_run: Run
) -> None:
    """22 MB follow the picture, which do not fit in memory together with the network."""
    done = hyps_run(cifar_bundle, "-", "--json", stdin=photograph.read_bytes() + bytes(22_000_000))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["peak_rss_bytes"] <= 72_000_000


def test_more_standard_input_than_there_is_room_for_is_refused(cifar_bundle: Path, hyps_run: Run) -> None:
    done = hyps_run(cifar_bundle, "-", stdin=bytes(50_000_000))
    assert (done.returncode, done.stdout) == (2, "")
    assert_matches(r"hyps-run: standard input is larger than [23]\d\.\d MB; give a file instead\n", done.stderr)


@pytest.fixture(scope="module")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory, bin_folder: Path) -> Path:
    """Return a network with an input of 48 MB, compiled for the smallest budget."""
    folder = tmp_path_factory.mktemp("wide")
    weights = np.ones((4, 3, 8, 8), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "W"], ["c"], strides=[8, 8]), helper.make_node("GlobalMaxPool", ["c"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2000, 2000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 1, 1])],
        [helper.make_tensor("W", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "wide.onnx")
    command: list[str | Path] = [bin_folder / "hypsc", "compile", folder / "wide.onnx", "-o", folder / "bundle", "--json"]
    command += ["--tier", "lean"]
    first = subprocess.run([*command, "--memory", "1GB"], capture_output=True, check=True, timeout=PATIENCE_S)
    budget = f"{json.loads(first.stdout)['smallest_budget_bytes']}B"
    subprocess.run([*command, "--memory", budget, "--force"], capture_output=True, check=True, timeout=PATIENCE_S)
    return folder / "bundle"


def test_large_tensors_are_read_within_the_budget(wide_bundle: Path, hyps_run: Run, tmp_path: Path) -> None:
    tensor = np.zeros((1, 3, 2000, 2000), np.float32)
    tensor[0, :, 8:16, 8:16] = 0.5
    np.save(tmp_path / "a.npy", tensor)
    np.savez(tmp_path / "b.npz", x=tensor)
    np.save(tmp_path / "c.npy", tensor.astype(">f4"))
    np.save(tmp_path / "d.npy", np.asfortranarray(tensor))
    for name in ("a.npy", "b.npz", "c.npy"):
        done = hyps_run(wide_bundle, tmp_path / name, "--json", "--save", tmp_path / "y.npz", "--repeat", "2")
        assert (done.returncode, done.stderr) == (0, ""), name
        result = json.loads(done.stdout)
        assert result["peak_rss_bytes"] <= result["budget_bytes"], name
        with np.load(tmp_path / "y.npz") as saved:
            assert saved["y"].ravel().tolist() == [0.5 * 3 * 8 * 8] * 4
    refused = hyps_run(wide_bundle, tmp_path / "d.npy")
    assert "save it in C order" in refused.stderr


FLAGS: dict[str, tuple[list[str], str]] = {
    "top 0": (["--top", "0"], "argument --top: must be a whole number, 1 or more (see 'hyps-run --help')"),
    "top x": (["--top", "x"], "argument --top: must be a whole number, 1 or more (see 'hyps-run --help')"),
    "repeat -1": (["--repeat", "-1"], "argument --repeat: must be a whole number, 1 or more (see 'hyps-run --help')"),
    "repeat 1.5": (["--repeat", "1.5"], "argument --repeat: must be a whole number, 1 or more (see 'hyps-run --help')"),
    "repeat huge": (
        ["--repeat", "9" * 5000],
        "argument --repeat: must be a whole number, 1 or more (see 'hyps-run --help')",
    ),
    "threads beyond the plan": (
        ["--threads", "5"],
        "--threads 5: the budget was planned for 1 to 4 threads; compile for a target with more cores, or with "
        "'hypsc compile --threads'",
    ),
    "unknown": (["--frobnicate"], "unrecognized arguments: --frobnicate (see 'hyps-run --help')"),
    "no value": (["--save"], "argument --save: expected one argument (see 'hyps-run --help')"),
    "save nowhere": (["--save", ""], "--save '.' names no file; give one such as outputs.npz"),
    "save to the root": (["--save", "/"], "--save '/' names no file; give one such as outputs.npz"),
}


@pytest.mark.parametrize(("flags", "line"), FLAGS.values(), ids=FLAGS)
def test_wrong_flags(cifar_bundle: Path, photograph: Path, hyps_run: Run, flags: list[str], line: str) -> None:
    done = hyps_run(cifar_bundle, photograph, *flags)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"hyps-run: {line}\n")


def test_missing_arguments(cifar_bundle: Path, hyps_run: Run) -> None:
    for arguments, missing in (((), "DIR, INPUT"), ((cifar_bundle,), "INPUT")):
        done = hyps_run(*arguments)
        expected = f"hyps-run: the following arguments are required: {missing} (see 'hyps-run --help')\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_help(hyps_run: Run) -> None:
    done = hyps_run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("DIR", "INPUT", "--top", "--repeat", "--threads", "--profile", "--save", "--json", "--no-verify"):
        assert flag in done.stdout


def test_save_takes_one_input(cifar_bundle: Path, photograph: Path, hyps_run: Run, tmp_path: Path) -> None:
    done = hyps_run(cifar_bundle, photograph, photograph, "--save", tmp_path / "x.npz")
    assert done.stderr == "hyps-run: --save keeps the outputs of one input, not of 2; run them one by one\n"
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_saved_leave_nothing(
    cifar_bundle: Path, photograph: Path, hyps_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("gone/x.npz", "No such file or directory"),
        ("file/x.npz", "Not a directory"),
        ("folder", "Is a directory"),
        ("x" * 250 + ".npz", "File name too long"),
    ):
        done = hyps_run(cifar_bundle, photograph, "--save", tmp_path / name)
        assert done.returncode == 2
        assert done.stderr == f"hyps-run: cannot write {tmp_path / name}: {reason}\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_outputs_of_a_disk_that_is_full_leave_nothing(
    cifar_bundle: Path, photograph: Path, hyps_run: Run, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk."""
    path = tmp_path / "x.npz"
    path.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        done = hyps_run(cifar_bundle, photograph, "--save", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.stderr == f"hyps-run: cannot write {path}: File too large\n"
    assert done.returncode == 2
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]
    assert path.read_text() == "before"


def test_a_full_device_for_the_output_is_one_line(cifar_bundle: Path, photograph: Path, bin_folder: Path) -> None:
    for flags in ([], ["--json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [bin_folder / "hyps-run", cifar_bundle, photograph, *flags],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
        assert done.stderr == "hyps-run: cannot print the result: No space left on device\n"
        assert done.returncode == 2


def test_a_reader_that_goes_away_is_no_error(cifar_bundle: Path, photograph: Path, bin_folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [bin_folder / "hyps-run", cifar_bundle, photograph],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
            timeout=PATIENCE_S,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_name_that_is_no_text(cifar_bundle: Path, photograph: Path, bin_folder: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes(photograph.read_bytes())
    command = [os.fsencode(bin_folder / "hyps-run"), os.fsencode(cifar_bundle), name]
    for flags in ([], [b"--json"]):
        done = subprocess.run([*command, *flags], capture_output=True, check=False, timeout=PATIENCE_S)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "caf\ufffd.jpg" in done.stdout.decode()


def opened_for_writing(pipe: Path, reader: subprocess.Popen[bytes]) -> int:
    """Return a file descriptor of ``pipe`` as soon as ``reader`` has opened the other end."""
    while reader.poll() is None:
        with suppress(OSError):  # the reader has not opened it yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)
    pytest.fail(f"it ended with {reader.returncode} before it read")


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_quietly(
    cifar_bundle: Path, bin_folder: Path, tmp_path: Path, signalled: signal.Signals
) -> None:
    """The signal arrives while it waits for a picture from a pipe."""
    pipe = tmp_path / "picture.jpg"
    os.mkfifo(pipe)
    command: list[str | Path] = [bin_folder / "hyps-run", cifar_bundle, pipe, "--save", tmp_path / "x.npz"]

    def restore_default() -> None:
        """Undo that a background process of a script ignores ctrl-C, which children inherit."""
        signal.signal(signalled, signal.SIG_DFL)

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=restore_default) as process:
        try:
            writing = opened_for_writing(pipe, process)
            while process.poll() is None:  # Python notices a signal between opening and reading only with the next one
                process.send_signal(signalled)
                time.sleep(0.3)
            output, errors = process.communicate()
            os.close(writing)
        finally:
            process.kill()
    assert (output, errors) == (b"", b"")
    assert process.returncode == 128 + signalled
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has glibc's tunables")
def test_it_runs_in_a_lean_environment(cifar_bundle: Path, bin_folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "picture.jpg"
    os.mkfifo(pipe)
    stock = {key: value for key, value in os.environ.items() if key not in ("HYPS_LEAN", "GLIBC_TUNABLES")}
    with subprocess.Popen([bin_folder / "hyps-run", cifar_bundle, pipe], env=stock) as process:
        try:
            writing = opened_for_writing(pipe, process)
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        finally:
            process.kill()
    os.close(writing)
    assert b"OPENBLAS_NUM_THREADS=1" in environment
    assert any(entry.startswith(b"GLIBC_TUNABLES=glibc.malloc.arena_max=1") for entry in environment)


# Damaged bundles are refused before anything is computed.


def test_a_changed_partition_is_refused(copied: Path, photograph: Path, hyps_run: Run, tmp_path: Path) -> None:
    weights = copied / "partitions/00-scores.weights"
    with weights.open("r+b") as stream:
        stream.seek(100_000)
        byte = stream.read(1)
        stream.seek(100_000)
        stream.write(bytes([byte[0] ^ 1]))
    done = hyps_run(copied, photograph, "--save", tmp_path / "x.npz")
    expected = f"hyps-run: {weights} was changed: its sha256 is not the manifest's; copy the bundle again\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    assert not (tmp_path / "x.npz").exists()
    unchecked = hyps_run(copied, photograph, "--no-verify")
    assert unchecked.returncode == 0


def test_a_bundle_comes_before_its_inputs(copied: Path, hyps_run: Run) -> None:
    """The bundle's fault is reported although the input is missing, too."""
    (copied / "partitions/00-scores.onnx").unlink()
    done = hyps_run(copied, "gone.jpg", "--no-verify")
    assert done.returncode == 2
    assert "00-scores.onnx is missing" in done.stderr


def test_a_partition_that_is_no_model(copied: Path, photograph: Path, hyps_run: Run) -> None:
    model = copied / "partitions/00-scores.onnx"
    model.write_bytes(bytes(model.stat().st_size))
    done = hyps_run(copied, photograph, "--no-verify")
    assert done.returncode == 2
    assert done.stderr.startswith(f"hyps-run: onnxruntime cannot open {model}: ")


def test_another_version(copied: Path, photograph: Path, hyps_run: Run) -> None:
    manifest = copied / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 3', '"version": 7'))
    done = hyps_run(copied, photograph)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{manifest} has format version 7, this hyps-run reads version 3" in done.stderr


def test_a_folder_that_is_not_a_bundle(hyps_run: Run, photograph: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", photograph):
        done = hyps_run(path, photograph)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"hyps-run: {path} is no bundle: it has no manifest.json; make one with 'hypsc compile'\n"


def test_an_input_that_is_missing(cifar_bundle: Path, photograph: Path, hyps_run: Run) -> None:
    done = hyps_run(cifar_bundle, photograph, "gone.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hyps-run: gone.jpg does not exist; ")


def test_a_missing_tensor(cifar_bundle: Path, hyps_run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz")
    done = hyps_run(cifar_bundle, tmp_path / "none.npz")
    assert done.returncode == 2
    assert str(tmp_path / "none.npz") in done.stderr


# Tests without a process of their own.


def test_outputs_of_any_name_are_saved(tmp_path: Path) -> None:
    """``np.savez`` takes names as keyword arguments, but ``file`` and ``allow_pickle`` are its own."""
    outputs = {name: np.full((2, 1), index) for index, name in enumerate(["file", "allow_pickle", "a/b:0", "é"])}
    save(tmp_path / "x.npz", outputs)
    with np.load(tmp_path / "x.npz") as saved:
        assert {name: saved[name].tolist() for name in saved.files} == {k: v.tolist() for k, v in outputs.items()}


def test_a_profile_as_json(hyps_run: Run, layers: Path, photograph: Path, tmp_path: Path) -> None:
    done = hyps_run(layers, photograph, "--profile-json", tmp_path / "profile.json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads((tmp_path / "profile.json").read_text())
    names = [step["name"] for step in json.loads((layers / "manifest.json").read_text())["steps"]]
    assert [row["name"] for row in rows] == names
    assert all(row["run_s"] > 0 and row["open_s"] > 0 and row["resident_bytes"] > 20e6 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    for path in (tmp_path / "no" / "profile.json", tmp_path):
        failed = hyps_run(layers, photograph, "--profile-json", path)
        assert (failed.returncode, failed.stderr.startswith("hyps-run: cannot write")) == (2, True)
    assert hyps_run(layers, photograph, "--profile-json", tmp_path / "p", "--batch", "2").returncode == 2


def test_the_runtime_prints_versions(hyps_run: Run) -> None:
    done = hyps_run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hyps-run ")
    assert f"numpy {np.__version__}\n" in done.stdout
    assert "bundle format 3\n" in done.stdout
