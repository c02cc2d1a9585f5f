"""Test ``hyps-run`` on videos as a user runs it: its lines, its account of the frames, its memory, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV, of the extra 'video', decodes")

from hyps.compiler import compile_model
from hyps.runtime.cli.options import run_parser
from hyps.runtime.cli.run import run_inputs
from hyps.runtime.cli.run_options import run_options
from hyps.runtime.device.process_memory import LEAN_ENVIRONMENT
from hyps.runtime.errors import InputError
from tests.runtime.video.clips import compile_clip_network, write_clip
from tests.waiting import PATIENCE_S

Run = Callable[..., subprocess.CompletedProcess[str]]
COUNT, LENGTH = 30, 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_clip_network(tmp_path_factory.mktemp("clips"), LENGTH)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", COUNT)


@pytest.fixture
def hyps_run(bin_folder: Path) -> Run:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [bin_folder / "hyps-run", *arguments]
        environment = os.environ | LEAN_ENVIRONMENT
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)

    return run


def test_lines_and_the_account(hyps_run: Run, bundle: Path, clip: Path) -> None:
    done = hyps_run(bundle, clip, "--hop", "6", "--top", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{clip}#0-3 (0.00 to 0.12 s)"
    assert sum(line.startswith(f"{clip}#") for line in lines) == 5
    assert lines[-1] == (
        f"{clip}: 30 frames read, 20 used in 5 windows, 10 dropped: 8 between windows, 2 fewer than a window"
    )


def test_json_and_memory(hyps_run: Run, bundle: Path, tmp_path: Path) -> None:
    """The peak is the same for twelve times as many frames, and within the budget."""
    peaks = []
    for count in (COUNT, 12 * COUNT):
        done = hyps_run(bundle, write_clip(tmp_path / f"{count}.mp4", count), "--json", "--hop", "2")
        assert done.returncode == 0, done.stderr
        *answers, summary = [json.loads(line) for line in done.stdout.splitlines()]
        windows = (count - LENGTH) // 2 + 1
        assert [answer["window"]["first_frame"] for answer in answers] == [*range(0, 2 * windows, 2)]
        assert all(answer["window"]["last_frame"] - answer["window"]["first_frame"] == LENGTH - 1 for answer in answers)
        assert (summary["windows"], summary["frames_read"]) == (windows, count)
        assert summary["frames_used"] + sum(summary["dropped"].values()) == count
        peaks.append(answers[-1]["peak_rss_bytes"])
        assert peaks[-1] <= answers[-1]["budget_bytes"]
    assert peaks[1] - peaks[0] < 1_000_000


def test_a_file_as_a_camera(hyps_run: Run, bundle: Path, clip: Path) -> None:
    done = hyps_run(bundle, clip, "--live", "latest", "--hop", "1", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert all("window" in json.loads(line) for line in done.stdout.splitlines())


def test_a_batch_of_windows(hyps_run: Run, bundle: Path, clip: Path) -> None:
    def answers(*options: str) -> list[tuple[str, object]]:
        lines = hyps_run(bundle, clip, "--json", "--hop", "1", *options).stdout.splitlines()
        return [(record["input"], record["values"]) for record in map(json.loads, lines[:-1])]

    assert answers("--batch", "4") == answers()
    assert len(answers()) == COUNT - LENGTH + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "none.mp4 does not exist"),
        (["CLIP", "CLIP"], "2 inputs with a video among them"),
        (["CLIP", "--window", "5"], "windows have 4 frames"),
        (["CLIP", "--stride", "10"], "has 30 frames, and a window takes 31"),
        (["CLIP", "--live", "latest", "--max-latency", "1s"], "--max-latency is for --live every"),
        (["CLIP", "--max-latency", "1s"], "--max-latency is for --live every"),
        (["CLIP", "--save", "x.npz"], "a video cannot be combined"),
        (["photo.png", "--stride", "2"], "photo.png names no pictures"),
    ],
)
def test_mistakes(bundle: Path, clip: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ran(bundle, *[str(clip) if each == "CLIP" else each for each in arguments])


def test_a_bundle_without_room_says_how_to_get_it(root: Path, clip: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "pictures"
    compile_model(root / "models/cifar10_vgg.onnx", bundle, memory_bytes=90_000_000, preprocess="cifar10")
    with pytest.raises(InputError, match="compile it with --preprocess and --video 1280x720"):
        ran(bundle, str(clip))


def ran(*arguments: str | Path) -> int:
    """Run the command in this process."""
    return run_inputs(run_options(run_parser().parse_args([*map(str, arguments)])), None)
