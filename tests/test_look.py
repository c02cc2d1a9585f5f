"""Check how the commands print: in a terminal, piped, without colours, quiet, verbose; and their help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hyps.runtime.terminal.exit import EXIT_CODES
from hyps.runtime.terminal.tables import Column, shortened, table
from tests.terminals import STYLE, Seen, watched

Run = Callable[..., subprocess.CompletedProcess[str]]

HYPSC = ("compile", "inspect", "validate", "analyze", "report", "plot", "targets list", "targets show", "models list")
OTHERS = (
    "hyps-run",
    "hyps-run calibrate",
    "hyps-run doctor",
    "hyps-manager serve",
    "hyps-manager status",
    "hyps-manager init-hub",
    "hyps-manager add-worker",
    "hyps-worker",
)
COMMANDS = (*(f"hypsc {name}" for name in (*HYPSC, "models build")), *OTHERS)
#: The other arguments that each needs, so that only ``-q -v`` is wrong.
GIVEN = {
    "hypsc compile": "no.onnx",
    "hypsc inspect": "no",
    "hypsc validate": "no.onnx no",
    "hypsc analyze": "no.onnx",
    "hypsc report": "no",
    "hypsc plot": "no -o x",
    "hypsc targets show": "rpi3b",
    "hypsc models build": "vgg16 -o x.onnx",
    "hyps-run": "no no",
    "hyps-manager init-hub": "x",
    "hyps-manager add-worker": "x",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bin_folder: Path) -> Path:
    """Build a network whose operators have long names, and its bundle of many partitions."""
    folder = tmp_path_factory.mktemp("look")
    for command in (
        "hypsc models build mobilenetv2_int8 -o long.onnx",
        "hypsc compile long.onnx --memory 90MB --split layers -o long",
    ):
        subprocess.run([bin_folder / command.split()[0], *command.split()[1:]], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def see(bin_folder: Path, place: Path) -> Callable[..., Seen]:
    """Return a function that runs a command line in a terminal in `place`."""

    def run(line: str, columns: int = 100, *, piped: bool = False, **env: str) -> Seen:
        program, *options = line.split()
        return watched(bin_folder / program, *options, columns=columns, piped=piped, env=env, cwd=place)

    return run


LINES = {
    "compile": "hypsc compile long.onnx --memory 90MB -o again --force",
    "compile --steps": "hypsc compile long.onnx --memory 90MB --split layers -o again --force --steps",
    "inspect": "hypsc inspect long",
    "inspect --steps": "hypsc inspect long --steps",
    "validate": "hypsc validate long.onnx long --random 1",
    "analyze": "hypsc analyze long.onnx --memory 90MB",
    "targets": "hypsc targets list",
    "models": "hypsc models list",
    "doctor": "hyps-run doctor long",
}


class TestTables:
    """No line is wider than the terminal, and every name is there."""

    @pytest.mark.parametrize("line", [line for name, line in LINES.items() if name != "doctor"], ids=str)
    def test_no_line_is_wider_than_the_terminal(self, see: Callable[..., Seen], line: str) -> None:
        for columns in (100, 80):
            seen = see(line, columns)
            assert seen.returncode == 0
            assert [text for text in seen.lines if len(text) > columns] == []

    def test_names_lose_their_middle_and_columns_are_left_out_with_a_word(self, see: Callable[..., Seen]) -> None:
        wide, narrow = (see("hypsc inspect long --steps", columns).lines for columns in (200, 80))
        head = next(row for row, text in enumerate(wide) if text.startswith("step "))
        name = wide[head + 1].split()[0]
        assert "…" not in name
        assert re.split(r"  +", wide[head])[4:6] == ["pinned", "read ahead"]
        cut = next(text for text in narrow if re.match(r"00-\S*… ?", text)).split()[0]
        assert name.startswith(cut.partition("…")[0])
        assert name.endswith(cut.partition("…")[2])
        assert "(no room for pinned, read ahead: widen the terminal, or use --json)" in narrow

    def test_what_scripts_read_is_whole(self, bin_folder: Path, place: Path) -> None:
        for options in (["--json"], ["--csv", "x.csv"]):
            command = [str(bin_folder / "hypsc"), "analyze", "long.onnx", *options]
            out = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
            text = out if "--json" in options else (place / "x.csv").read_text()
            assert "ConvBnFusion_BN_B_conv1.bn.bias_DequantizeLinear" in text
            assert "…" not in text

    def test_numbers_are_to_the_right(self) -> None:
        columns = (Column("name"), Column("size", numeric=True), Column("more", numeric=True, spare=True))
        assert list(table(columns, [["a" * 12, "1", "2"], ["b\n", "10", "x"]])) == [
            "name          size  more",
            "aaaaaaaaaaaa     1     2",
            "b\\n             10     x",
        ]

    @pytest.mark.parametrize(("most", "found"), [(7, "abcdef"), (6, "abcdef"), (5, "ab…ef"), (2, "a…")])
    def test_shortened(self, most: int, found: str) -> None:
        assert shortened("abcdef", most) == found


class TestColours:
    """Colours appear only on a terminal that can show them, and not with ``NO_COLOR``."""

    @pytest.mark.parametrize("line", [line for name, line in LINES.items() if "--steps" not in name], ids=str)
    def test_styles(self, see: Callable[..., Seen], line: str) -> None:
        assert STYLE.search(see(line).screen)
        assert not STYLE.search(see(line, NO_COLOR="1").screen)  # a bar may move the cursor where the machine is slow
        assert "\x1b" not in see(line, TERM="dumb").screen
        seen = see(line, piped=True, FORCE_COLOR="1")
        assert seen.piped
        assert "\x1b" not in seen.piped

    @pytest.mark.parametrize("line", ["hypsc inspect no", "hyps-run no no", "hyps-manager serve no", "hyps-worker"])
    def test_what_is_wrong_begins_with_the_program_in_red(self, see: Callable[..., Seen], line: str) -> None:
        program = line.split()[0]
        assert see(line).screen.startswith(f"\x1b[31m{program}\x1b[0m: ")
        assert see(line, NO_COLOR="1").screen.startswith(f"{program}: ")


class TestVolume:
    """The effects of ``-q`` and ``-v``."""

    @pytest.mark.parametrize("command", COMMANDS)
    def test_not_both(self, bin_folder: Path, tmp_path: Path, command: str) -> None:
        program, *words = command.split()
        given = GIVEN.get(command, "").split()
        done = subprocess.run(
            [bin_folder / program, *words, *given, "-q", "-v"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert re.search(r"-q|--quiet", done.stderr)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("line", "stdout"),
        [
            ("hypsc compile long.onnx --memory 90MB -o again --force -q", ""),
            ("hypsc models build cifar10_vgg -o small.onnx -q", ""),
            ("hypsc analyze long.onnx --csv x.csv -q", ""),
            ("hypsc validate long.onnx long --random 1 -q", r"passed: 1 input, required: [^\n]*\n"),
            ("hyps-run calibrate -o board.toml --folder . -q", ""),
            ("hyps-run long x.npy -q", r"x\.npy\n(  [^\n]*\n)+"),
            ("hyps-run long x.npy --save y.npz -q", ""),
            ("hyps-run long x.npy --output y.jsonl -q", ""),
        ],
    )
    def test_quiet(self, see: Callable[..., Seen], place: Path, line: str, stdout: str) -> None:
        _input(place)
        (place / "y.jsonl").unlink(missing_ok=True)
        seen = see(line, piped=True)
        assert (seen.returncode, seen.screen) == (0, "")
        assert re.fullmatch(stdout, seen.piped)
        assert "peak memory" not in seen.piped

    def test_quiet_tells_what_is_wrong(self, see: Callable[..., Seen]) -> None:
        for line in ("hypsc inspect no -q", "hyps-run long no -q"):
            assert see(line).returncode == 2
            assert see(line).screen.count("\n") == 1

    def test_compile_explains_beside_json(self, bin_folder: Path, place: Path) -> None:
        command = [
            str(bin_folder / "hypsc"),
            "compile",
            "long.onnx",
            "--memory",
            "75MB",
            "--tier",
            "lean",
            "-o",
            "why",
            "--force",
            "--json",
            "-v",
        ]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
        data, explained = json.loads(done.stdout), done.stderr.replace("\n    ", " ")
        for stage in ("reading", "planning", "writing"):
            assert re.search(rf"^hypsc: {stage}: \d+\.\d\d s$", explained, re.MULTILINE)
        for part in data["partitions"]:
            assert f"hypsc: {part['name']}: {part['reason']['kind']}: {part['reason']['text']}; " in explained
        assert len(data["tried"]) > 1
        assert [tried["refused"] for tried in data["tried"]].count("") == 1
        assert explained.count("hypsc: taken: ") == 1
        assert explained.count("hypsc: refused: ") == len(data["tried"]) - 1
        best = next(tried for tried in data["tried"] if not tried["refused"])
        assert (best["partitions"], best["latency_s"]) == (len(data["partitions"]), data["latency_s"])
        assert all(tried["latency_s"] >= best["latency_s"] for tried in data["tried"] if "inexact" not in tried["refused"])

    def test_a_run_tells_what_becomes_of_every_step(self, bin_folder: Path, place: Path) -> None:
        _input(place)
        steps = json.loads((place / "long" / "manifest.json").read_bytes())["steps"]
        for options in ([], ["--json"]):
            command = [str(bin_folder / "hyps-run"), "long", "x.npy", "-v", *options]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
            told = done.stderr.replace("\n    ", " ")
            assert f"in {len(steps)} steps" in told
            for step in steps:
                kept = ", ".join(step["live"])
                assert re.search(
                    rf"^hyps-run: {step['name']}: .* MB resident, .* keeps {re.escape(kept)}$", told, re.MULTILINE
                )
            assert not options or json.loads(done.stdout)["input"] == "x.npy"


class TestProgress:
    """Work of a second or more shows its progress on a terminal, and clears it at the end."""

    def test_of_runs(self, see: Callable[..., Seen], place: Path) -> None:
        _input(place)
        seen = see("hyps-run long x.npy --repeat 150 --json", piped=True)
        assert re.search(r"\d+ of 150 runs, \d+%, \d:\d\d:\d\d left", seen.screen)
        assert [text for text in seen.lines if text] == []
        assert json.loads(seen.piped)["input"] == "x.npy"

    @pytest.mark.parametrize(("seconds", "shown"), [(0.0, False), (1.5, True)])
    def test_of_the_compiler(self, seconds: float, shown: bool) -> None:
        program = f"""
import time
from hyps.compiler.cli.console import Console
with Console().progress("working", 10) as advance:
    for _ in range(10):
        time.sleep({seconds / 10})
        advance(1)
"""
        seen = watched(sys.executable, "-c", program)
        assert seen.returncode == 0
        assert ("working" in seen.screen) == shown
        assert not shown or re.search(r"working: \d+%, \d:\d\d:\d\d left", seen.screen)
        assert not shown or seen.screen.endswith("\r\x1b[K"), "it is cleared"
        for env in ({"TERM": "dumb"}, {}):
            quiet = "quiet=True" if not env else ""
            assert watched(sys.executable, "-c", program.replace("Console()", f"Console({quiet})"), env=env).screen == ""


class TestHelp:
    """The texts of ``--help``."""

    @pytest.mark.parametrize("command", ["hypsc", "hyps-manager", *COMMANDS])
    def test_exit_codes(self, bin_folder: Path, command: str) -> None:
        program, *words = command.split()
        for option in ("--help", "-h"):
            done = subprocess.run([bin_folder / program, *words, option], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert EXIT_CODES in " ".join(done.stdout.split())
        assert max(map(len, done.stdout.splitlines())) <= 80 or program != "hypsc"

    def test_options_are_in_groups_with_examples(self, bin_folder: Path) -> None:
        command = [str(bin_folder / "hypsc"), "compile", "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
        assert headings == ["Arguments", "Target", "Splitting", "Input", "Output", "Options"]
        for heading, option in (("Target", "--memory"), ("Splitting", "--shard"), ("Input", "--labels"), ("Output", "-q")):
            assert option in text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
        assert re.search(r"Examples:\n    hypsc compile net\.onnx --memory 128MB\n", text)

    def test_pages_tell_them(self, root: Path) -> None:
        codes = re.findall(r"\d+", EXIT_CODES)
        page = (root / "docs/reference/commands.md").read_text()
        assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == codes


def test_a_full_disk_is_one_line(bin_folder: Path, place: Path) -> None:
    _input(place)
    for line in ("hypsc targets list", "hypsc models list --json", "hyps-run long x.npy"):
        program, *words = line.split()
        command = [str(bin_folder / program), *words]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (2, f"{program}: cannot print the result: No space left on device\n")


def test_lines_of_several_threads_are_whole() -> None:
    """A manager prints on two; without a buffer, each write of a program is a write to its output."""
    program = (
        "import threading\nfrom hyps.runtime.terminal.console import note, show\n"
        "def act(name):\n    for _ in range(5000):\n        show([name]); note(name, 'hyps')\n"
        "threads = [threading.Thread(target=act, args=(name,)) for name in ('one', 'two')]\n"
        "for thread in threads: thread.start()\n"
    )
    command = [sys.executable, "-u", "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    assert set(done.stdout.splitlines()) == {"one", "two", "hyps: one", "hyps: two"}


def _input(place: Path) -> None:
    import numpy as np

    np.save(place / "x.npy", np.zeros((1, 3, 224, 224), np.float32))
