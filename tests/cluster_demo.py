"""Run ``make cluster-demo``: a hub, a manager and three workers on this machine; one worker is killed.

The workers are as slow as small boards: on this processor one alone would be fastest, as the network is small.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hyps.runtime.bundle.integrity import read_manifest
from tests.repository import BIN, ROOT
from tests.runtime.cluster.devices import Devices
from tests.waiting import PATIENCE_S, wait_for

#: The seconds that one of the workers takes for a photograph alone.
WHOLE_S = 0.5


def main() -> None:
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if mosquitto is None:
        sys.exit("make cluster-demo needs the broker Mosquitto: apt-get install mosquitto")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        cat = ROOT / "models" / "cat.jpg"
        bundle, labels = folder / "bundle", ROOT / "models" / "cifar10_labels.txt"
        options: list[str | Path] = ["--memory", "72MB", "--split", "layers", "--preprocess", "cifar10", "--labels", labels]
        command = [BIN / "hypsc", "compile", ROOT / "models" / "cifar10_vgg.onnx", "-o", bundle, *options]
        subprocess.run(command, check=True, capture_output=True)
        devices = Devices(stack, folder, bundle, BIN, mosquitto)
        devices.start_hub()
        devices.start_manager("--workers", "3")
        pace = sum(step.multiply_adds for step in read_manifest(bundle).steps) / WHOLE_S
        for number in range(3):
            devices.start_paced(f"w{number}", pace)
        devices.wait_for_sub_bundles(workers=3)
        print_lines("the manager", devices, "sub-bundle ", " on ")
        here = run(bundle, cat)
        there = run(bundle, cat, "--engine", devices.url)
        print(there)
        print("the same as on one device:", "yes" if said(here) == said(there) else "NO")
        print("\nw1 is killed while 20 photographs are under way")
        stream = subprocess.Popen([BIN / "hyps-run", bundle, *[cat] * 20, "--engine", devices.url], stdout=subprocess.PIPE)
        wait_for(
            "three answers", lambda: len(re.findall("sub-bundle 2 on w.: inferring -> computed", devices.log("manager"))) > 3
        )
        devices.kill("w1")
        output = stream.communicate(timeout=PATIENCE_S)[0].decode()
        wait_for("w1's loss", lambda: "w1 is gone" in devices.log("manager"))
        print_lines("the manager", devices, "is gone")
        answers = output.split(str(cat))[1:]
        right = sum(answer.splitlines()[1:6] == said(here) for answer in answers)
        print(f"answers: {len(answers)} of 20, {right} the same as on one device")
        if said(here) != said(there) or right != 20:
            sys.exit(1)


def run(bundle: Path, *options: str | Path) -> str:
    return subprocess.run([BIN / "hyps-run", bundle, *options], check=True, capture_output=True, text=True).stdout


def said(output: str) -> list[str]:
    """Return the classes of a run's output, without the times."""
    return output.splitlines()[1:-1]


def print_lines(who: str, devices: Devices, *words: str) -> None:
    print(f"{who}:")
    for line in devices.log("manager").splitlines():
        if all(word in line for word in words) and not line.startswith("hyps-"):
            print(f"  {line}")


if __name__ == "__main__":
    main()
