"""Provide what the benchmarks of several devices share: bundles, a cluster on network namespaces, tables."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from hyps.models.catalogue import build
from tests.cluster_network import Network, NoNetwork, network
from tests.repository import BIN, ROOT
from tests.runtime.cluster.boards import Boards
from tests.runtime.cluster.devices import Devices

#: Of a page.
WIDTH = 118


def mosquitto() -> str:
    """The broker's program; exits where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        sys.exit("make bench-cluster needs the broker Mosquitto: apt-get install mosquitto")
    return found


def build_layers(folder: Path) -> Path:
    """The trained classifier, cut after every layer."""
    return compile_bundle(ROOT / "models" / "cifar10_vgg.onnx", folder / "layers", "72MB")


def build_vgg16(folder: Path, memory: str) -> Path:
    """VGG16, cut after every layer."""
    model = folder / "vgg16.onnx"
    if not model.exists():
        build("vgg16", model)
    return compile_bundle(model, folder / f"vgg16-{memory}", memory)


def compile_bundle(model: Path, bundle: Path, memory: str) -> Path:
    """As a user would, with the command."""
    if not bundle.exists():
        options: list[str | Path] = ["--memory", memory, "--split", "layers", "--threads", "1", "-o", bundle]
        subprocess.run([BIN / "hypsc", "compile", model, *options], check=True, capture_output=True)
    return bundle


def cluster_on(
    stack: ExitStack, folder: Path, bundle: Path, broker: str, workers: Sequence[str], *, shaped: bool
) -> tuple[Devices, Network | None]:
    """Devices that are not started yet: on boards of their own, by shaped links if asked, or else all on loopback."""
    try:
        links = stack.enter_context(network(["hub", "manager", "client", *workers]))
    except NoNetwork:
        return Devices(stack, folder, bundle, BIN, broker), None
    if shaped:
        links.shape()
    return Boards(stack, folder, bundle, BIN, broker, links), links


def table(title: str, *columns: str) -> Table:
    """An empty one, in the style of ``make bench``."""
    made = Table(title=title, title_justify="left", box=None, min_width=min(len(title), WIDTH))
    for column in columns:
        made.add_column(column, justify="left" if column is columns[0] else "right")
    return made
