"""Stop commands with ctrl-C and SIGTERM at any moment: the exit code says so, and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.conftest import listing
from tests.terminals import interrupted
from tests.waiting import PATIENCE_S, signal_while

#: Seconds after a command first handles signals: while it imports, while it works.
MOMENTS = (0.0, 0.05, 0.2, 0.6, 1.0)
LINES = {
    "compile": "hypsc compile net.onnx --memory 75MB -o out",
    "analyze": "hypsc analyze net.onnx --csv out.csv",
    "report": "hypsc report net.onnx --memory 75MB -o out.html",
    "plot": "hypsc plot net.onnx --memory 75MB -o out --format png",
    "tune": "hyps-run tune bundle -o out",
    "profile": "hyps-run profile bundle -o out.json",
    "build": "hypsc models build alexnet -o out.onnx --external-data",
    "validate": "hypsc validate net.onnx bundle --random 20",
    "run": "hyps-run bundle x.npy --repeat 1000 --save out.npz --profile-json out.json",
    "batch": "hyps-run bundle many --batch 100 --output out.jsonl",
    "calibrate": "hyps-run calibrate -o out.toml --folder .",
    "doctor": "hyps-run doctor bundle",
    "worker": "hyps-worker --hub mqtt://127.0.0.1:1 --name w --cache cache",
    "manager": "hyps-manager bundle --hub mqtt://127.0.0.1:1 --journal journal",
}
#: What an interrupted command keeps, to continue from: results and journals of whole lines, whole fetched partitions.
KEPT = {"batch": {"out.jsonl"}, "worker": {"cache"}, "manager": {"journal", "hyps-profiles.sqlite"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bin_folder: Path) -> Path:
    """Build a network that takes a while to plan, its bundle of many steps, and inputs."""
    folder = tmp_path_factory.mktemp("interrupts")
    for command in (
        "hypsc models build mobilenetv2 -o net.onnx",
        "hypsc compile net.onnx --memory 80MB --split layers -o bundle",
    ):
        subprocess.run([bin_folder / command.split()[0], *command.split()[1:]], cwd=folder, check=True, capture_output=True)
    tensor = np.zeros((1, 3, 224, 224), np.float32)
    np.save(folder / "x.npy", tensor)
    (folder / "many").mkdir()
    for index in range(60):
        os.link(folder / "x.npy", folder / "many" / f"{index}.npy")
    (folder / "scratch").mkdir()
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", LINES)
def test_nothing_is_left(
    name: str, number: signal.Signals, place: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(place / "scratch"))
    program, *words = LINES[name].split()
    before = listing(place)
    stopped = 0
    for moment in MOMENTS:
        status, written = interrupted([bin_folder / program, *words], moment, number, place)
        left = {path for path in listing(place).keys() - before.keys() if path.split("/")[0] not in KEPT.get(name, set())}
        if status == 0:  # it was done by then
            shutil.rmtree(place / "out", ignore_errors=True)
            for path in place.glob("out.*"):
                path.unlink()
            continue
        stopped += 1
        assert status == 128 + number
        assert "Traceback" not in written
        # nothing, or whole lines: the signal may arrive after the answer
        assert name in ("doctor", "worker", "manager", "calibrate") or written == "" or written.endswith("\n"), written
        assert left == set()
        assert listing(place / "scratch") == {}
    assert stopped >= 2
    for kept in KEPT.get(name, ()):
        shutil.rmtree(place / kept, ignore_errors=True)
        (place / kept).unlink(missing_ok=True)
    assert listing(place) == before


def test_an_impatient_second_one_leaves_nothing_either(place: Path, bin_folder: Path) -> None:
    """The second signal arrives while temporary files are being removed.

    The first comes before the file is in its place, while numpy's extension modules are imported: there its exception may be
    lost, so that the command goes on until it would put the file there.
    """
    before = listing(place)
    for pause in (0.0, 0.002, 0.01):
        command = [str(bin_folder / "hypsc"), "models", "build", "alexnet", "-o", "out.onnx"]
        with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert signal_while(process, signal.SIGINT, lambda: [*place.glob(".out.onnx.*/out.onnx")])
            for _ in range(9):
                process.send_signal(signal.SIGINT)
                time.sleep(pause)
            written, _ = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, written) == (130, b"")
        assert listing(place) == before


def test_in_the_background_of_a_script_ctrl_c_is_for_others(place: Path, bin_folder: Path) -> None:
    """A shell starts background jobs with SIGINT ignored, and it must stay ignored."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    command = [str(bin_folder / "hyps-run"), "bundle", "x.npy", "--repeat", "5"]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, preexec_fn=ignore) as process:
        for _ in range(10):
            time.sleep(0.03)
            process.send_signal(signal.SIGINT)
        written, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, written.startswith(b"x.npy")) == (0, True)
