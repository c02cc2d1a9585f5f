"""``hyps-run calibrate`` as a user sees it, and the target file that it writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.compiler.target_files import load_target
from hyps.compiler.targets import Sources, Target
from hyps.runtime.calibration import measurements as module
from hyps.runtime.calibration.baseline import Baseline
from hyps.runtime.calibration.calibrate import calibrate
from hyps.runtime.calibration.measurements import obtainable_memory
from hyps.runtime.calibration.power import PowerProbe
from hyps.runtime.calibration.rates import Rates
from hyps.runtime.calibration.step_costs import StepCosts
from hyps.runtime.calibration.target_file import Calibration, toml_text
from hyps.runtime.cli import main as cli
from hyps.runtime.device.available_memory import AvailableMemory
from hyps.runtime.device.link_rates import HubMeasurements, LinkRates
from hyps.runtime.device.memory_probe import PIECE_BYTES
from hyps.runtime.device.probes import StorageProbe
from hyps.runtime.errors import DeviceError, OutputError
from tests.waiting import PATIENCE_S, signal_while, wait_for

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")

MEMORY = AvailableMemory(total_bytes=1_000_000_000, available_bytes=700_000_000, bound="MemAvailable of /proc/meminfo")
RATES = Rates(
    threads=3,
    conv_macs_per_s=9_000_000_000,
    gemm_macs_per_s=12_000_000_000,
    gemv_bytes_per_s=2_500_000_000,
    gemv_weight_bytes=64 << 20,
    conv_by_threads={1: 3_000_000_000, 2: 6_000_000_000, 3: 9_000_000_000, 4: 8_000_000_000},
)
STEPS = StepCosts(
    depthwise_macs_per_s=400_000_000,
    memory_bytes_per_s=2_000_000_000,
    cached_read_bytes_per_s=900_000_000,
    fresh_bytes_per_s=500_000_000,
    open_us=3_000,
    open_node_us=200,
    step_us=800,
)
POWER = PowerProbe(
    watts_by_cores={0: 1.4, 1: 2.1, 2: 2.6, 4: 3.8},
    source="ina219 sensor",
    covers="the rail ina219, unlabelled",
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the measurements by those of a board, so that a test takes no time."""
    monkeypatch.setattr(module, "available_memory", lambda: MEMORY)
    monkeypatch.setattr(module, "storage", lambda folder: StorageProbe(read_bytes_per_s=22_000_000, file_bytes=64_000_000))
    monkeypatch.setattr("hyps.runtime.calibration.rates.rates", lambda cores, cache, room: RATES)
    monkeypatch.setattr("hyps.runtime.calibration.step_costs.step_costs", lambda threads: STEPS)
    found = Baseline(process_bytes=53_000_000, process_images_bytes=57_000_000)
    monkeypatch.setattr("hyps.runtime.calibration.baseline.baseline", lambda threads, budget: found)
    monkeypatch.setattr("hyps.runtime.calibration.decompression.decompression_bytes_per_s", lambda: 150_000_000)
    monkeypatch.setattr("hyps.runtime.calibration.power.power", lambda cores, meter, load: POWER if meter else None)
    monkeypatch.setattr(module, "board", lambda: "Raspberry Pi 3 Model B Rev 1.2")


@pytest.fixture
def storage_folder(root: Path) -> Path:
    """A folder that is on storage: temporary ones are in memory on some machines."""
    return root


def test_a_device_is_measured_and_its_file_is_a_target(
    hyps_run: Run, bin_folder: Path, tmp_path: Path, storage_folder: Path
) -> None:
    output = tmp_path / "kitchen.toml"
    done = hyps_run("calibrate", "-o", output, "--folder", storage_folder, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == [output]

    target = load_target(str(output))
    assert target.name == "kitchen"
    assert target.network_bytes_per_s is None
    assert target.process_bytes is not None
    assert target.process_images_bytes is not None
    assert 35e6 < target.process_bytes <= target.process_images_bytes < 90e6
    assert target.threads in range(1, target.cores + 1)
    assert 0 < target.budget_bytes < target.memory_bytes
    for source in (target.sources.memory, target.sources.storage, target.sources.process, target.sources.compute):
        assert "measured by hyps-run calibrate on 20" in source
        assert os.uname().release in source
        assert "onnxruntime 1." in source
    assert target.sources.network == ""

    answer = json.loads(done.stdout)
    assert answer.pop("file") == str(output)
    assert answer.pop("budget_bytes") == target.budget_bytes
    assert msgspec.convert(answer, Target) == target
    shown = subprocess.run([bin_folder / "hypsc", "targets", "show", output], capture_output=True, text=True, check=True)
    assert shown.stdout == output.read_text()


def test_the_file_compiles_a_model(measured: None, bin_folder: Path, root: Path, tmp_path: Path) -> None:
    calibrate(tmp_path / "board.toml", None, tmp_path)
    command: list[str | Path] = [
        bin_folder / "hypsc",
        "compile",
        root / "models/cifar10_vgg.onnx",
        "--target",
        tmp_path / "board.toml",
    ]
    subprocess.run([*command, "-o", tmp_path / "bundle"], check=True, capture_output=True, timeout=PATIENCE_S)
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert manifest["target"]["name"] == "board"
    assert manifest["budget_bytes"] == 700_000_000


def test_the_table(measured: None, tmp_path: Path) -> None:
    lines = list(calibrate(tmp_path / "board.toml", None, tmp_path))
    cores = len(os.sched_getaffinity(0))
    assert lines == [
        "Raspberry Pi 3 Model B Rev 1.2",
        "  memory               700.0 MB  available of 1,000.0 MB",
        "  runtime               53.0 MB  of it, before any network",
        "  with pictures         57.0 MB  the same, having decoded a photograph",
        "  storage             22.0 MB/s  read cold",
        f"  threads                     3  the fastest of 1 to {cores}",
        "  Conv                  9.0 G/s  multiply-adds; by threads 1: 3.0, 2: 6.0, 3: 9.0, 4: 8.0",
        "  Gemm                 12.0 G/s  multiply-adds, in cache",
        "  Gemm, one row    2,500.0 MB/s  of weights, from memory",
        "  step                  0.80 ms  and 3.00 ms where its session is opened",
        "  decompression      150.0 MB/s  of compressed weights, by one thread",
        f"written to {tmp_path}/board.toml; on your computer: hypsc compile MODEL --target board.toml -o BUNDLE",
    ]


def test_power_is_in_the_table_and_in_the_file(measured: None, tmp_path: Path) -> None:
    """One busy core took 0.1 W more than the line from 1.4 to 3.8 W says: the fit's error."""
    lines = list(calibrate(tmp_path / "board.toml", None, tmp_path, meter="echo 5"))
    assert "  power                  1.40 W  idle; 3.80 W with all cores busy" in lines
    target = load_target(str(tmp_path / "board.toml"))
    assert (target.idle_milliwatts, target.busy_milliwatts, target.power_error_milliwatts) == (1400, 3800, 100)
    assert target.sources.power.startswith(
        "ina219 sensor, which covers the rail ina219, unlabelled; watts by busy cores: 0: 1.40, 1: 2.10, 2: 2.60, 4: 3.80; "
        "measured by hyps-run calibrate on 20"
    )


def test_the_file(measured: None, tmp_path: Path) -> None:
    list(calibrate(tmp_path / "board.toml", "my-board.2", tmp_path))
    text = (tmp_path / "board.toml").read_text()
    assert text.startswith('name = "my-board.2"\ntitle = "Raspberry Pi 3 Model B Rev 1.2"\nmemory_bytes = 1_000_000_000\n')
    assert "reserved_bytes = 300_000_000\n" in text
    assert "\n# network_bytes_per_s is not measured; measure it with --hub, or if you know it, write it here" in text
    sources = tomllib.loads(text)["sources"]
    assert sources["storage"].startswith(f"cold sequential read of 64 MB in {tmp_path}; measured by hyps-run calibrate on ")
    assert sources["threads"].startswith(
        "1e9 multiply-adds a second of the Conv by threads: 1: 3.00, 2: 6.00, 3: 9.00, 4: 8.00;"
    )


def test_its_fields_are_those_of_a_target() -> None:
    """Every figure of a target is measured; each has its source."""
    assert set(Calibration.__struct_fields__) == set(Target.__struct_fields__)


def test_its_sources_are_those_of_a_target(measured: None, tmp_path: Path) -> None:
    list(calibrate(tmp_path / "board.toml", None, tmp_path, meter="echo 5"))
    sources = tomllib.loads((tmp_path / "board.toml").read_text())["sources"]
    assert set(sources) == set(Sources.__struct_fields__) - {"network"}


def test_a_link_to_a_hub_is_part_of_the_target(measured: None, tmp_path: Path) -> None:
    link = LinkRates(up_bytes_per_s=2_000_000, down_bytes_per_s=11_000_000, latency_s=0.0042)
    found = HubMeasurements(link=link, message_s=0.00042)
    lines = [*calibrate(tmp_path / "board.toml", None, tmp_path, probe_hub=lambda: found)]
    assert "  network              2.0 MB/s  to the hub; 11.0 MB/s from it; 4.20 ms one way (half a round trip)" in lines
    assert "  message               0.42 ms  of the processor, to send one or to receive it" in lines
    target = load_target(str(tmp_path / "board.toml"))
    assert target.message_us == 420
    assert (target.network_up_bytes_per_s, target.network_down_bytes_per_s) == (2_000_000, 11_000_000)
    assert (target.network_bytes_per_s, target.network_latency_us) == (2_000_000, 4200)
    assert "half of a round trip of 64 bytes" in target.sources.network
    assert "is not measured" not in (tmp_path / "board.toml").read_text()


def test_messages_are_left_out_where_the_link_is_too_slow_to_measure_them(measured: None, tmp_path: Path) -> None:
    slow = HubMeasurements(link=LinkRates(up_bytes_per_s=1000, down_bytes_per_s=1000, latency_s=1.0), message_s=None)
    lines = [*calibrate(tmp_path / "board.toml", None, tmp_path, probe_hub=lambda: slow)]
    assert not [line for line in lines if line.startswith("  message")]
    assert load_target(str(tmp_path / "board.toml")).message_us is None


@given(title=st.text(min_size=1), cpu=st.text(min_size=1), source=st.text(), figure=st.integers(1, 2**63 - 1))
def test_any_text_survives_the_file(title: str, cpu: str, source: str, figure: int) -> None:
    fields: dict[str, Any] = dict.fromkeys(Calibration.__struct_fields__, figure)
    texts = {"name": "board", "title": title, "cpu": cpu, "sources": {"memory": source}}
    found = Calibration(**fields | texts)
    assert tomllib.loads(toml_text(found)) == msgspec.to_builtins(found)


def test_a_folder_whose_name_is_no_text(measured: None, hyps_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    lines = list(calibrate(folder / "board.toml", None, folder))
    assert "caf�/board.toml" in lines[-1]
    assert "caf�" in load_target(str(folder / "board.toml")).sources.storage
    assert json.loads(next(iter(calibrate(folder / "board.toml", None, folder, as_json=True))))["file"].endswith(
        "board.toml"
    )


WRONG = {
    "no suffix": ("board", None, "--output '{0}/board' is not the name of a target file; give one that ends in .toml"),
    "no name": (".toml", None, "--output '{0}/.toml' is not the name of a target file; give one that ends in .toml"),
    "a folder": ("a.toml", None, "--output '{0}/a.toml' is not the name of a target file; give one that ends in .toml"),
    "in no folder": (
        "gone/b.toml",
        None,
        "cannot write {0}/gone/b.toml: {0}/gone is no folder; give another place with --output",
    ),
    "in a file": (
        "file/b.toml",
        None,
        "cannot write {0}/file/b.toml: {0}/file is no folder; give another place with --output",
    ),
    "no target's name": (
        "my board.toml",
        None,
        "'my board' cannot be a target's name; use up to 64 letters, digits, '.', '_' and '-', a letter or digit first, "
        "with --name",
    ),
    "a wrong name": (
        "b.toml",
        "b\n",
        r"'b\n' cannot be a target's name; use up to 64 letters, digits, '.', '_' and '-', a letter or digit first",
    ),
}


@pytest.mark.parametrize(("output", "name", "line"), WRONG.values(), ids=WRONG)
def test_a_file_that_cannot_be(
    output: str, name: str | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes before anything is measured."""
    (tmp_path / "a.toml").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(module, "available_memory", lambda: pytest.fail("it measured"))
    with pytest.raises(OutputError) as caught:
        calibrate(tmp_path / output, name, tmp_path)
    assert str(caught.value) == line.format(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.toml", "file"]


def test_a_failure_leaves_the_old_file(measured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "board.toml"
    output.write_text("old")

    def full(*arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        calibrate(output, None, tmp_path)
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("obtained", "available", "bound"),
    [
        (
            MEMORY.available_bytes // PIECE_BYTES * PIECE_BYTES,
            700_000_000,
            "MemAvailable of /proc/meminfo (a process took all",
        ),
        (100 * PIECE_BYTES, 100 * PIECE_BYTES, "a process that took all it could"),
    ],
    ids=["all", "less"],
)
def test_memory_that_was_tested(obtained: int, available: int, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "obtainable_bytes", lambda most: obtained)
    memory = obtainable_memory(MEMORY)
    assert (memory.total_bytes, memory.available_bytes) == (MEMORY.total_bytes, available)
    assert memory.bound.startswith(bound)


def test_memory_that_nobody_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "obtainable_bytes", lambda most: 0)
    with pytest.raises(DeviceError, match="got none; stop other programs here"):
        obtainable_memory(MEMORY)


def test_memory_is_tested_where_it_is_asked_for(measured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "obtainable_bytes", lambda most: 50 * PIECE_BYTES)
    for asked, budget in ((True, 50 * PIECE_BYTES), (False, MEMORY.available_bytes)):
        list(calibrate(tmp_path / "board.toml", None, tmp_path, test_memory=asked))
        assert load_target(str(tmp_path / "board.toml")).budget_bytes == budget


def test_progress_is_for_terminals(measured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    calibrate(tmp_path / "board.toml", None, tmp_path)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    calibrate(tmp_path / "board.toml", None, tmp_path)
    shown = capsys.readouterr().err
    stages = re.findall(r"\r\x1b\[Kmeasuring (.*?), (\d) of 5; ", shown)
    assert stages == [("memory", "1"), ("storage", "2"), ("compute", "3"), ("the runtime's own memory", "4"), ("power", "5")]
    assert shown.endswith("\r\x1b[K")
    calibrate(tmp_path / "board.toml", None, tmp_path, quiet=True)
    monkeypatch.setenv("TERM", "dumb")
    calibrate(tmp_path / "board.toml", None, tmp_path)
    assert capsys.readouterr() == ("", "")


# In a process of its own.


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_storage_in_memory_is_one_line(hyps_run: Run, tmp_path: Path) -> None:
    done = hyps_run("calibrate", "-o", tmp_path / "board.toml", "--folder", "/dev/shm")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give a folder on the device's storage with --folder" in done.stderr
    assert not list(tmp_path.iterdir())


def test_wrong_options(hyps_run: Run) -> None:
    for arguments, said in (
        (("calibrate", "bundle"), "unrecognized arguments: bundle"),
        (("calibrate", "-o"), "argument -o/--output: expected one argument"),
    ):
        done = hyps_run(*arguments)
        assert (done.returncode, done.stderr) == (2, f"hyps-run: {said} (see 'hyps-run calibrate --help')\n")


def test_help(hyps_run: Run) -> None:
    assert "./calibrate" in hyps_run("--help").stdout
    done = hyps_run("calibrate", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--output", "--name", "--folder", "--json", "--test-memory"):
        assert flag in done.stdout


def test_a_bundle_of_that_name_is_still_reached(bin_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [bin_folder / "hyps-run", "./calibrate", "x.npy"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ("hyps-run: calibrate is no bundle: it has no manifest.json; make one with 'hypsc compile'\n")


def writes_to_storage(pid: int, scratch: Path) -> bool:
    """Return whether the process has a file without a name open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if link.readlink().name.endswith("(deleted)"):
                return True
    return False


def computes(pid: int, scratch: Path) -> bool:
    return "/onnxruntime_pybind11_state" in Path(f"/proc/{pid}/maps").read_text()


def runs_the_runtime(pid: int, scratch: Path) -> bool:
    return any(scratch.iterdir()) and bool(children(pid))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reached", [writes_to_storage, computes, runs_the_runtime])
def test_a_signal_leaves_nothing(
    signalled: signal.Signals, reached: Callable[[int, Path], bool], bin_folder: Path, tmp_path: Path, storage_folder: Path
) -> None:
    """Neither a file nor a process is left, whatever was being measured."""
    (scratch := tmp_path / "scratch").mkdir()
    (out := tmp_path / "out").mkdir()
    command: list[str | Path] = [bin_folder / "hyps-run", "calibrate", "-o", out / "board.toml"]
    command += ["--folder", storage_folder]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            started: set[str] = set()

            def measures() -> bool:
                started.update(children(process.pid))
                return reached(process.pid, scratch)

            assert signal_while(process, signalled, measures), "it ended before it could be interrupted"
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, output, errors) == (128 + signalled, b"", b"")
    assert not list(scratch.iterdir())
    assert not list(out.iterdir())
    wait_for("the end of every child", lambda: not any(is_alive(child) for child in started))


def test_the_command_measures_before_it_imports_what_is_heavy() -> None:
    script = (
        "import sys, hyps.runtime.calibration.calibrate; print(sorted({'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_main_takes_its_arguments(measured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("HYPS_LEAN", "1")
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    with pytest.raises(SystemExit) as left:
        cli.main(["calibrate", "-o", str(tmp_path / "board.toml"), "--name", "mine", "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mine"
