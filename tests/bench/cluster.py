"""``make bench-cluster``: what several devices gain and cost, on this machine; the tables go to ``docs/cluster.md``, too."""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from rich.console import Console

from tests.bench import cluster_speed, faults
from tests.bench.cluster_memory import memory
from tests.bench.cluster_speed import speeds
from tests.bench.cluster_wire import Wired, wired
from tests.bench.clusters import WIDTH, build_layers, build_vgg16, mosquitto, table
from tests.bench.drawn_faults import KINDS
from tests.bench.wire import HOPS, needed_s
from tests.cluster_network import RATE_BITS_PER_S, NoNetwork, network
from tests.repository import ROOT

PAGE = ROOT / "docs" / "cluster.md"
IMAGES = 1000
HEAD = """\
# Several devices, measured

Written by `make bench-cluster`; do not edit. All boards are processes on one machine: {machine}.
Each has a network namespace of its own and a link to a switch that carries {rate:.0f} Mbit/s each way (for speed: loopback);
the hub, the manager and the client are such boards, too. Bytes are counted by the interfaces. Versions: {versions}.
"""
#: Sections by the option that runs it alone.
Section = Callable[[Path, Console], None]


def main() -> None:
    """Run every section, or those that were named; each is dated and replaces what the page said about it."""
    sections: dict[str, Section] = {"wire": wire, "speed": speed, "memory": held}
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster", description="Benchmarks of several devices.")
    parser.add_argument("--faults", type=int, default=0, metavar="N", help="a campaign of N kills and pulled cables, too")
    parser.add_argument("--only", action="append", choices=[*sections, "faults"], help="this section alone (repeatable)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left
    logging.disable(logging.WARNING)
    if options.faults:
        sections["faults"] = lambda folder, out: survival(folder, out, options.faults)
    said = page_sections(PAGE.read_text()) if PAGE.exists() else {}
    for name, section in sections.items():
        if options.only and name not in options.only:
            continue
        out = Console(width=WIDTH, highlight=False, record=True)
        with tempfile.TemporaryDirectory(prefix="hyps-bench-") as scratch:
            section(Path(scratch), out)
        text = "\n".join(line.rstrip() for line in out.export_text().splitlines())
        said[name] = f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC.\n\n```\n{text}\n```\n"
        write_page(said)


def wire(folder: Path, out: Console) -> None:
    """The local run's bits, what crosses the links, and how soon."""
    try:
        with network(["a"]):
            pass
    except NoNetwork as reason:
        out.print(f"no links of boards here, all is on loopback: {reason}")
    rows = table(
        "VGG16, one image at a time; MB an image at the workers' links, both ways",
        *("workers", "same bits", "tensors", "in TCP", "ratio", "on the wire", "ratio"),
    )
    times = table(
        f"from a worker's first byte to the next worker's last; needed: {HOPS} hops of a shaped link, one after the other",
        *("workers", "boundary", "MB", "ms", "needed ms", "ratio"),
    )
    for row in wired(folder, build_vgg16(folder, "600MB"), (1, 2, 3, 6)):
        rows.add_row(str(row.workers), "yes" if row.same else "NO", *_megabytes(row))
        for number, (nbytes, seconds) in enumerate(row.boundaries, start=1):
            needed = needed_s(nbytes)
            cells = (f"{nbytes / 1e6:.2f}", f"{seconds * 1e3:.0f}", f"{needed * 1e3:.0f}", f"{seconds / needed:.2f}")
            times.add_row(str(row.workers), str(number), *cells)
    out.print(rows)
    out.print(times)


def _megabytes(row: Wired) -> list[str]:
    cells = [f"{row.tensor_bytes / 1e6:.2f}"]
    for nbytes in (row.stream_bytes, row.wire_bytes):
        cells += ["", ""] if nbytes is None else [f"{nbytes / 1e6:.2f}", f"{nbytes / row.tensor_bytes:.3f}"]
    return cells


def speed(folder: Path, out: Console) -> None:
    """One worker against three of the same kind."""
    share = f"{cluster_speed.SHARE:.0%} of a core each"
    columns = ("boards", "workers", "s an image", "ratio", "images a s", "ratio", "expected at full speed")
    rows = table(f"VGG16, workers of {share}", *columns)
    try:
        one = None
        for row in speeds(folder, build_vgg16(folder, "128MB")):
            one = row if row.workers == 1 else one
            assert one
            cells = [f"{row.latency_s:.2f}", f"{row.latency_s / one.latency_s:.2f}"]
            cells += [f"{row.per_s:.3f}", f"{row.per_s / one.per_s:.2f}"]
            rows.add_row(row.label, str(row.workers), *cells, re.sub(r" (an inference|in a stream)", "", row.expected))
    except OSError as error:
        out.print(f"no shares of a processor here, as control groups cannot be made: {error}")
    else:
        out.print(rows)


def held(folder: Path, out: Console) -> None:
    """Memory of the processes."""
    rows = table("resident MB", "process", "now", "at the most")
    for row in memory(folder, build_layers(folder), build_vgg16(folder, "600MB")):
        rows.add_row(row.what, f"{row.resident_bytes / 1e6:.1f}", f"{row.peak_bytes / 1e6:.1f}")
    out.print(rows)


def survival(folder: Path, out: Console, count: int) -> None:
    """The campaign; exits with 1 where an image was not answered once and right."""
    outcome = faults.campaign(folder, count, IMAGES, 1, KINDS, lambda text: None)
    faults.report(outcome, out)
    if not outcome.good:
        sys.exit(1)


def page_sections(text: str) -> dict[str, str]:
    """What the page says, by the names of its sections."""
    found = re.split(r"^## (\w+)$\n\n", text, flags=re.MULTILINE)[1:]
    return {name.lower(): content for name, content in zip(found[::2], found[1::2], strict=True)}


def write_page(said: dict[str, str]) -> None:
    """The page from its sections."""
    broker = subprocess.run([mosquitto(), "-h"], capture_output=True, text=True, check=False).stdout.splitlines()[0]
    names = ("hyps", "onnxruntime", "paho-mqtt", "numpy")
    versions = [f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in names), broker]
    model = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    machine = f"{os.cpu_count()} cores of {model[0] if model else platform.machine()}, Linux {platform.release()}"
    head = HEAD.format(machine=machine, rate=RATE_BITS_PER_S / 1e6, versions=", ".join(versions))
    parts = [f"## {name.capitalize()}\n\n{content.strip()}\n" for name, content in said.items()]
    PAGE.write_text("\n".join([head, *parts]))


if __name__ == "__main__":
    main()
