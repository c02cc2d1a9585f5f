"""``make demo``: a network of 553 MB within 128 MB, on a photograph; then a trained one that names what is in it.

Runs the project's own commands and prints each before its output, so that all of it can be repeated by hand.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

FOLDER = Path("demo")
BIN = Path(sys.executable).parent


def main() -> None:
    """Build, compile, run, compare."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    cat = FOLDER / "cat.png"
    cat.write_bytes(resources.files("skimage").joinpath("data/chelsea.png").read_bytes())

    say("VGG16 (seeded weights) for a board of 512 MB, within 128 MB")
    run("hypsc models build vgg16 -o demo/vgg16.onnx")
    run("hypsc compile demo/vgg16.onnx --target rpizero2w --memory 128MB --preprocess imagenet -o demo/vgg16")
    run("hyps-run demo/vgg16 demo/cat.png --profile")

    say("Peak memory beside the budget, and beside the whole model's in onnxruntime")
    bundle = json.loads(output("hyps-run demo/vgg16 demo/cat.png --json"))
    whole = whole_peak_bytes()
    for name, nbytes in (
        ("hyps-run, whole process", bundle["peak_rss_bytes"]),
        ("its budget", bundle["budget_bytes"]),
        ("onnxruntime, whole model", whole),
    ):
        print(f"  {name:26} {nbytes / 1e6:8.1f} MB")
    if bundle["peak_rss_bytes"] > bundle["budget_bytes"]:
        sys.exit("the budget was exceeded")

    say("Is it the same result, bit for bit?")
    run("hypsc validate demo/vgg16.onnx demo/vgg16 --images demo/cat.png")

    say("A trained network: what is in the photograph?")
    run("hypsc models build cifar10_vgg -o demo/cifar10.onnx")
    run(
        "hypsc compile demo/cifar10.onnx --memory 72MB --split pooling --preprocess cifar10 "
        "--labels models/cifar10_labels.txt -o demo/cifar10"
    )
    run("hyps-run demo/cifar10 demo/cat.png --top 3")


def whole_peak_bytes() -> int:
    """The peak of a process that runs the whole VGG16 in onnxruntime as it comes, on random pixels."""
    code = (
        "import sys, numpy as np, onnxruntime as ort;"
        "session = ort.InferenceSession(sys.argv[1]);"
        "session.run(None, {'image': np.ones((1, 3, 224, 224), np.float32)});"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    command = [sys.executable, "-c", code, str(FOLDER / "vgg16.onnx")]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) * 1024


def say(title: str) -> None:
    """Print a heading."""
    print(f"\n== {title}", flush=True)


def run(command: str) -> None:
    """Print and run one of the project's commands; a failure ends the demo."""
    print(f"\n$ {command}", flush=True)
    _call(command, capture=False)


def output(command: str) -> str:
    """What one of the project's commands prints."""
    return _call(command, capture=True)


def _call(command: str, *, capture: bool) -> str:
    program, *arguments = shlex.split(command)
    done = subprocess.run([BIN / program, *arguments], check=False, stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()
