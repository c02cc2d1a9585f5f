"""Test that no output shows what a name hides: terminal codes, line ends, marks that turn text, and markup.

Names of operators, tensors, labels, files, targets and workers come from other people's files and messages.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from hyps.compiler.cli.console import shell_word
from hyps.runtime.cluster.cli.status import table_lines
from hyps.runtime.cluster.manager.energy import BoardPowerLine, EnergyLine
from hyps.runtime.cluster.manager.status import Status, SubBundleLine, WorkerLine
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.terminal.console import json_text, show
from hyps.runtime.terminal.logs import PlainFormatter
from tests.terminals import STYLE, watched

#: Clears the screen; a line of its own; C1 codes; a mark that turns the text; markup.
HOSTILE = "a\x1b[2J\nINJECTED\x9b2K\x7f\u202eb\u2066\u200f<script>alert(1)</script>"
#: Files on Linux may have every character but the slash.
FILE = HOSTILE.replace("/", "")
LETTER = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def check_shown(text: str) -> None:
    """Fail if something in the text is not shown as it is, or begins a line that a name made up."""
    assert not LETTER.search(text), ascii(text[:2000])
    assert "\nINJECTED" not in text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bin_folder: Path) -> Path:
    """Make a model all of whose names are hostile, its bundle, labels and a picture."""
    folder = tmp_path_factory.mktemp("hostile")
    draw = np.random.default_rng(0)
    weights = {"w": (8, 3, 3, 3), "g": (8 * 8 * 8, 4)}
    arrays = {f"{HOSTILE}{name}": draw.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    image, *names = (f"{HOSTILE}{name}" for name in ("image", "conv", "pool", "flat", "scores"))
    conv, pool, flat, scores = names
    nodes = [
        helper.make_node("Conv", [image, f"{HOSTILE}w"], [conv], name=conv, pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", [conv], [pool], name=pool, kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", [pool], [flat], name=flat),
        helper.make_node("Gemm", [flat, f"{HOSTILE}g"], [scores], name=scores),
    ]
    graph = helper.make_graph(
        nodes,
        HOSTILE,
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name=HOSTILE)
    onnx.save(model, folder / f"{FILE}.onnx")
    label = HOSTILE.replace("\n", " ")  # a line of the file is a label
    (folder / "labels.txt").write_text("".join(f"{label}{number}\n" for number in range(4)), encoding="utf-8")
    Image.new("RGB", (20, 20)).save(folder / f"{FILE}.png")
    (folder / f"{FILE}.txt").write_text("no picture", encoding="utf-8")
    done = subprocess.run([bin_folder / "hypsc", *COMPILE], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_shown(done.stdout + done.stderr)
    return folder


MODEL, PICTURE = f"{FILE}.onnx", f"{FILE}.png"
COMPILE = (
    *("compile", MODEL, "-o", f"{FILE}.bundle", "--memory", "72MB", "--split", "layers", "-v", "--steps"),
    *("--preprocess", "raw", "--labels", "labels.txt", "--force"),
)
BUNDLE = f"{FILE}.bundle"
REFUSABLE = ("compile", MODEL, "-o", f"no{BUNDLE}", "--memory", "72MB")
RUNS: dict[str, tuple[str, ...]] = {
    "compile": ("hypsc", *COMPILE),
    "compile --json": ("hypsc", *COMPILE, "--json"),
    "analyze": ("hypsc", "analyze", MODEL, "--memory", "72MB", "-v"),
    "analyze --json": ("hypsc", "analyze", MODEL, "--memory", "72MB", "--json"),
    "inspect": ("hypsc", "inspect", BUNDLE, "--steps", "-v"),
    "inspect --json": ("hypsc", "inspect", BUNDLE, "--json"),
    "validate": ("hypsc", "validate", MODEL, BUNDLE, "--random", "1", "-v"),
    "validate --json": ("hypsc", "validate", MODEL, BUNDLE, "--random", "1", "--json"),
    "report": ("hypsc", "report", BUNDLE, "-o", "bundle.html", "--force", "-v"),
    "report of a model": ("hypsc", "report", MODEL, "--memory", "72MB", "-o", "model.html", "--force", "-v"),
    "plot": ("hypsc", "plot", BUNDLE, "-o", FILE, "--force"),
    "run": ("hyps-run", BUNDLE, PICTURE, "-v", "--profile"),
    "run --json": ("hyps-run", BUNDLE, PICTURE, "--json"),
    "run in a batch": ("hyps-run", BUNDLE, PICTURE, PICTURE, "--batch", "2"),
    "doctor": ("hyps-run", "doctor", BUNDLE, "-v"),
}
#: Command lines that are refused, with a name in the reason.
REFUSED: dict[str, tuple[str, ...]] = {
    "no such model": ("hypsc", "compile", f"no{FILE}", "--memory", "72MB"),
    "a model that is none": ("hypsc", "compile", f"{FILE}.txt", "--memory", "72MB"),
    "no such target": ("hypsc", "compile", MODEL, "--target", FILE),
    "no such command": ("hypsc", FILE),
    "no such preset": ("hypsc", *REFUSABLE, "--preprocess", FILE),
    "no such operator": ("hypsc", *REFUSABLE, "--shard", f"{FILE}=output:2"),
    "an unknown input shape": ("hypsc", *REFUSABLE, "--input-shape", f"{FILE}:1,3,16,16"),
    "a bundle that is none": ("hypsc", "inspect", FILE),
    "no such bundle": ("hyps-run", FILE, PICTURE),
    "no such picture": ("hyps-run", BUNDLE, f"no{FILE}"),
    "a picture that is none": ("hyps-run", BUNDLE, f"{FILE}.txt"),
    "no such engine": ("hyps-run", BUNDLE, PICTURE, "--engine", FILE),
    "no such option": ("hyps-run", BUNDLE, PICTURE, f"--{FILE}"),
    "no such archive": ("hyps-run", BUNDLE, PICTURE, "--output", FILE),
    "no such worker": ("hyps-worker", "--hub", "mqtt://127.0.0.1:1", "--name", FILE),
    "no such hub": ("hyps-worker", "--hub", f"mqtt://{FILE}:1", "--name", "w"),
    "no join file": ("hyps-manager", BUNDLE, "--join", FILE),
    "no such manager's bundle": ("hyps-manager", f"no{FILE}", "--hub", "mqtt://127.0.0.1:1"),
    "no name of a worker": ("hyps-manager", "add-worker", FILE, "--hub-dir", FILE),
    "no such status": ("hyps-manager", "status", "--hub", FILE),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_command_shows_every_character_of_a_name(place: Path, bin_folder: Path, name: str) -> None:
    program, *options = RUNS[name]
    done = subprocess.run([bin_folder / program, *options], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    check_shown(done.stdout + done.stderr)
    if name.endswith("--json"):
        shown = json.dumps(json.loads(done.stdout), ensure_ascii=False)
        assert "\u202e" in shown, "JSON tells the names as they are"


@pytest.mark.parametrize("name", ["inspect", "run"])
def test_a_terminal_gets_no_codes_but_our_styles(place: Path, bin_folder: Path, name: str) -> None:
    program, *options = RUNS[name]
    seen = watched(bin_folder / program, *options, cwd=place)
    check_shown(STYLE.sub("", seen.screen.replace("\r\n", "\n")).replace("\r\x1b[K", ""))


def test_a_command_to_type_next_can_be_pasted() -> None:
    word = shell_word(f"{HOSTILE}'\\ é")
    check_shown(word)
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{HOSTILE}'\\ é"


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_line_whatever_the_name(place: Path, bin_folder: Path, name: str) -> None:
    program, *options = REFUSED[name]
    done = subprocess.run([bin_folder / program, *options], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    check_shown(done.stdout + done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("name", ["bundle.html", "model.html"])
def test_the_report_has_no_markup_of_names(place: Path, bin_folder: Path, name: str) -> None:
    source = BUNDLE if name == "bundle.html" else MODEL
    memory = () if name == "bundle.html" else ("--memory", "72MB")
    command = [bin_folder / "hypsc", "report", source, *memory, "-o", name, "--force"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    page = (place / name).read_text(encoding="utf-8")
    check_shown(page)
    assert "<script>alert" not in page
    assert "alert(1)" in page  # the names are there


def lines_of_a_status() -> Iterator[str]:
    worker = WorkerLine(
        name=HOSTILE,
        memory_bytes=1,
        macs_per_s=1,
        loading=(),
        loaded=(0,),
        leases=0,
        computed_per_s=0.0,
        set_aside=False,
        problem=HOSTILE,
    )
    power = BoardPowerLine(name=HOSTILE, watts=3, idle_watts=1, estimated=False, source=HOSTILE)
    sub_bundle = SubBundleLine(number=0, first=HOSTILE, last=f"{HOSTILE}2", homes={HOSTILE: HOSTILE}, waiting=0)
    return table_lines(
        Status(
            model=HOSTILE,
            jobs=1,
            answered=2,
            answered_per_s=0.5,
            workers=(worker,),
            sub_bundles=(sub_bundle,),
            rejected={HOSTILE: 1},
            energy=EnergyLine(
                seconds=60,
                answered=1,
                watts=3,
                idle_watts=1,
                static_joules=1,
                dynamic_joules=2,
                boards=(power, msgspec.structs.replace(power, counted_with=HOSTILE)),
                unknown=(HOSTILE,),
            ),
        )
    )


def test_a_status_shows_every_character_of_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    show(lines_of_a_status())
    shown = capsys.readouterr().out
    check_shown(shown)
    assert "1 job under way, 2 answered, 0.5 a second" in shown


def test_a_log_shows_every_character_of_a_message() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "%s is lost", (HOSTILE,), sys.exc_info())
    check_shown(PlainFormatter("hyps-worker: %(message)s").format(record))


def test_an_error_is_one_line_that_shows_every_character() -> None:
    check_shown(str(RuntimeFault(HOSTILE, HOSTILE)))
    assert "\n" not in str(RuntimeFault(HOSTILE, HOSTILE))


def test_what_is_shown_is_spelt_out_even_where_a_command_forgets(capsys: pytest.CaptureFixture[str]) -> None:
    show(["\x1b[2J\u202e é …"])
    assert capsys.readouterr().out == "\\x1b[2J\\u202e é …\n"


def test_json_stays_json() -> None:
    text = {"name": HOSTILE, "tag": "\U000e0041"}
    shown = json_text(json.dumps(text, ensure_ascii=False).encode())
    check_shown(shown)
    assert json.loads(shown) == text
