"""Run ``make demo``: VGG16 in 128 MB on a photograph, compared with the whole model; then a trained network.

Each of the project's commands is printed before its output, so that all of it can be repeated by hand.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.repository import BIN

FOLDER = Path("demo")
BAR_CHARACTERS = 50


def main() -> None:
    """Build, compile, run and compare; exit with 1 where a number or the budget is not kept."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    shutil.copy("models/cat.jpg", FOLDER)

    say("A trained network: what is in the photograph?")
    run("hypsc models build cifar10_vgg -o demo/cifar10.onnx")
    run(
        "hypsc compile demo/cifar10.onnx --memory 72MB --split pooling --preprocess cifar10 "
        "--labels models/cifar10_labels.txt -o demo/cifar10"
    )
    run("hyps-run demo/cifar10 demo/cat.jpg --top 3")

    say("VGG16 (553 MB of seeded weights) for a board of 512 MB, within 128 MB")
    run("hypsc models build vgg16 -o demo/vgg16.onnx")
    run("hypsc compile demo/vgg16.onnx --target rpizero2w --memory 128MB --preprocess imagenet --tune -o demo/vgg16")
    run("hyps-run demo/vgg16 demo/cat.jpg")

    say("Compared with the whole model in onnxruntime")
    bundle = json.loads(output("hyps-run demo/vgg16 demo/cat.jpg --json"))
    tuned = json.loads(output("hypsc validate demo/vgg16.onnx demo/vgg16 --images demo/cat.jpg --json"))
    compared = json.loads(output("hypsc validate demo/vgg16.onnx demo/vgg16 --images demo/cat.jpg --json --untuned"))
    whole_bytes = whole_peak_bytes()
    for name, nbytes in (("onnxruntime, whole model", whole_bytes), ("hyps-run, whole process", bundle["peak_rss_bytes"])):
        print(f"  {name:26} {nbytes / 1e6:8.1f} MB  {'#' * max(1, round(BAR_CHARACTERS * nbytes / whole_bytes))}")
    print(f"  {'its budget':26} {bundle['budget_bytes'] / 1e6:8.1f} MB")
    same = all(each["max_abs"] == 0 for each in compared["outputs"])
    print(f"\n  as compiled for every processor, the same 1000 numbers: {'yes' if same else 'NO'}")
    print(f"  tuned for this processor, the largest difference: {max(each['max_rel'] for each in tuned['outputs']):.0e}")
    if not same or bundle["peak_rss_bytes"] > bundle["budget_bytes"]:
        sys.exit(1)

    say("Next, for example")
    print("  .venv/bin/hypsc report demo/vgg16 -o demo/vgg16.html     # open it in a browser: memory, graph, partitions")
    print("  .venv/bin/hypsc compile YOUR.onnx --memory 128MB -o bundle   # docs/guide/own-model.md")
    print("  make cluster-demo                                        # several devices; one is killed in the middle")


def whole_peak_bytes() -> int:
    """Return the peak memory, in bytes, of a process that runs the whole VGG16 in onnxruntime as it comes."""
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
    """Return what one of the project's commands prints."""
    return _call(command, capture=True)


def _call(command: str, *, capture: bool) -> str:
    program, *arguments = shlex.split(command)
    done = subprocess.run([BIN / program, *arguments], check=False, stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()
