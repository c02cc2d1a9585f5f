"""Define the command lines of ``hyps-run`` and of its commands ``tune``, ``profile``, ``calibrate`` and ``doctor``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from hyps.runtime.terminal.parser import Parser, add_about, add_power, add_volume, count, counts, duration, energy, size


def board_class(text: str) -> str:
    """Parse a name of a class of boards: 1 to 300 characters that can be printed."""
    if not 0 < len(text) <= 300 or not text.isprintable():
        raise argparse.ArgumentTypeError("must be a name of 1 to 300 characters")
    return text


def run_parser() -> Parser:
    """Return the parser of ``hyps-run``."""
    parser = Parser(
        prog="hyps-run",
        description="Run a bundle within its memory budget.",
        examples=(
            "hyps-run bundle cat.jpg                      # the five best classes, the time, the peak memory",
            "hyps-run bundle photos --batch 16 --output results.jsonl",
        ),
        epilog="'hyps-run tune' makes a bundle faster on this device, 'hyps-run profile' measures its steps here, 'hyps-run "
        "calibrate' measures the device for hypsc, and 'hyps-run doctor' checks it. Each has its own --help. Write ./tune, "
        "./profile, ./calibrate or ./doctor for a bundle in a folder of that name.",
    )
    inputs = parser.add_argument_group("input")
    inputs.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, made by 'hypsc compile'")
    inputs.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="an image, a .npy or .npz file, a folder of them, or - for standard input"
    )
    _add_output(parser.add_argument_group("output"))
    where = parser.add_argument_group("where and how it runs")
    where.add_argument("--threads", type=count, metavar="N", help="compute with N threads (default: one for each core)")
    where.add_argument("--batch", type=count, default=1, metavar="N", help="read the weights once for N inputs")
    where.add_argument(
        "--engine",
        metavar="URL",
        help="compute on other devices: mqtt://HOST:PORT (see 'hyps-manager --help'), dask://HOST:PORT or dask://local",
    )
    where.add_argument("--join", type=Path, metavar="FILE", help="a join file for a hub (see 'hyps-manager add-client')")
    where.add_argument(
        "--exact",
        action="store_true",
        help="have a cluster decode nothing: wait for each shard of a code, so that the result is exact bit for bit",
    )
    where.add_argument("--custom-ops", type=Path, metavar="LIB", help="a library with the model's custom operators")
    where.add_argument("--untuned", action="store_true", help="run a tuned bundle as it was before it was tuned")
    where.add_argument("--no-verify", action="store_true", help="check the files' sizes, but not their sha256")
    _add_video(
        parser.add_argument_group("video: a file, an address such as rtsp://HOST/PATH, /dev/video0, or 'frames/*.jpg'")
    )
    _add_exits(parser.add_argument_group("early exits, of a bundle compiled with 'hypsc compile --exits'"))
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--repeat", type=count, default=1, metavar="N", help="run each input N times, report the median time"
    )
    measuring.add_argument(
        "--profile", action="store_true", help="print for each step: load and run time, bytes read, resident memory"
    )
    measuring.add_argument(
        "--profile-json", type=Path, metavar="FILE", help="write the last input's profile for 'hypsc report'"
    )
    measuring.add_argument(
        "--energy", action="store_true", help="run one input again and again, and print the joules of one inference"
    )
    measuring.add_argument(
        "--energy-windows", type=count, default=3, metavar="N", help="measure energy N times (default: 3)"
    )
    measuring.add_argument(
        "--energy-seconds", type=count, default=30, metavar="S", help="measure for S seconds each time (default: 30)"
    )
    add_power(measuring)
    add_about(parser)
    return parser


def _add_video(video: argparse._ArgumentGroup) -> None:
    video.add_argument("--stride", type=count, default=1, metavar="S", help="take each S-th frame (default: 1)")
    video.add_argument("--window", type=count, metavar="N", help="the frames of a window, which the model says: a check")
    video.add_argument(
        "--hop", type=count, metavar="H", help="begin a window every H frames that are taken (default: a window's length)"
    )
    video.add_argument(
        "--live",
        choices=("latest", "every"),
        help="compute the newest window when there is time, or every one; a file then comes at its own speed (default: "
        "latest for cameras and addresses; files are computed whole, as fast as possible)",
    )
    video.add_argument(
        "--max-latency",
        type=duration,
        default=math.inf,
        metavar="TIME",
        help="with --live every: leave out windows that are later than TIME, e.g. 500ms",
    )


def _add_exits(exits: argparse._ArgumentGroup) -> None:
    exits.add_argument(
        "--exit-policy",
        default="never",
        metavar="POLICY",
        help="end where POLICY says: never, threshold:0.9 (at that confidence), or a .json or .onnx file (default: never)",
    )
    exits.add_argument(
        "--offload",
        metavar="URL|FILE",
        help="where the rest of an inference goes when a policy in a file says so: mqtt://HOST:PORT or a join file for a "
        "manager of the same bundle, or dask://HOST:PORT",
    )
    exits.add_argument(
        "--offload-wait",
        type=duration,
        default=0.0,
        metavar="TIME",
        help="wait up to TIME for that link before the first input (default: compute here until it is there)",
    )
    exits.add_argument(
        "--deadline",
        type=duration,
        default=math.inf,
        metavar="TIME",
        help="end at the last exit that an inference is expected to reach in this time, e.g. 80ms",
    )
    exits.add_argument(
        "--energy-limit",
        type=energy,
        default=math.inf,
        metavar="ENERGY",
        help="the same for energy, e.g. 0.5J, estimated from --watts or the target's power",
    )


def _add_output(output: argparse._ArgumentGroup) -> None:
    output.add_argument("--top", type=count, default=5, metavar="K", help="print the K best classes (default: 5)")
    output.add_argument("--json", action="store_true", help="print one JSON object for each input, one a line")
    output.add_argument("--save", type=Path, metavar="FILE.npz", help="write the raw outputs of one input, by name")
    output.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the results to FILE.jsonl, or to the folder FILE.parquet; inputs whose results are there are skipped",
    )
    add_volume(output, "what each step opens, reads, keeps and releases")


def tune_parser() -> Parser:
    """Return the parser of ``hyps-run tune``."""
    parser = Parser(
        prog="hyps-run tune",
        description="Make a bundle faster on this device: onnxruntime optimises every step for this processor. The "
        "tuned bundle runs on processors of this kind, with this version of onnxruntime. The memory stays "
        "within the bundle's budget.",
        examples=(
            "hyps-run tune bundle                       # writes bundle-tuned",
            "hyps-run tune bundle -o bundle --force",
        ),
    )
    parser.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, made by 'hypsc compile'")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="the tuned bundle's folder (default: the bundle's name, -tuned)"
    )
    parser.add_argument("--force", action="store_true", help="replace the bundle that exists there")
    parser.add_argument(
        "--memory", type=size, metavar="SIZE", help="the memory that tuning may take, e.g. 256MB (default: the budget)"
    )
    parser.add_argument("--custom-ops", type=Path, metavar="LIB", help="a library with the model's custom operators")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_volume(parser, "why steps stay as they were compiled")
    return parser


def profile_parser() -> Parser:
    """Return the parser of ``hyps-run profile``."""
    parser = Parser(
        prog="hyps-run profile",
        description="Measure every step of a bundle on this device, as a worker of a cluster runs it: its seconds with its "
        "weights in memory and from storage, for several numbers of threads, and its memory. Placements on several "
        "devices are planned from such profiles; one for each kind of board is enough. Let nothing else run meanwhile.",
        examples=(
            "hyps-run profile bundle -o step_profile.json",
            "hyps-run profile bundle -o pi4.json --threads 1,4 --repeats 31 --board-class pi4",
        ),
    )
    parser.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, made by 'hypsc compile'")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("step_profile.json"),
        metavar="FILE",
        help="the file to write (default: step_profile.json)",
    )
    parser.add_argument(
        "--threads",
        type=counts,
        metavar="N,N",
        help="the numbers of threads (default: 1, 2, 3, 4, 8 and so on, up to the bundle's and this device's)",
    )
    parser.add_argument(
        "--repeats",
        type=count,
        default=15,
        metavar="N",
        help="run each step N times with its weights in memory (default: 15)",
    )
    parser.add_argument(
        "--board-class",
        type=board_class,
        metavar="NAME",
        help="a name of your own for this kind of board (default: its model, processor, cores, memory and onnxruntime)",
    )
    parser.add_argument("--custom-ops", type=Path, metavar="LIB", help="a library with the model's custom operators")
    parser.add_argument("--json", action="store_true", help="print the file's content as one JSON object")
    add_volume(parser, "every step, not only the slowest")
    return parser


def calibrate_parser() -> Parser:
    """Return the parser of ``hyps-run calibrate``."""
    parser = Parser(
        prog="hyps-run calibrate",
        description="Measure this device in ten to thirty seconds, and write a target file for 'hypsc compile --target'. "
        "Where a sensor or --meter shows its power, that takes half a minute more. Let nothing else run meanwhile, unless "
        "it will also run while the network does.",
        examples=("hyps-run calibrate --output board.toml",),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("board.toml"),
        metavar="FILE.toml",
        help="the target file to write (default: board.toml)",
    )
    parser.add_argument("--name", metavar="NAME", help="the target's name (default: the file's)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="measure the storage that holds DIR (default: the current folder)",
    )
    parser.add_argument(
        "--test-memory",
        action="store_true",
        help="check that the free memory is really available: a process takes all of it for a moment, as the first that the "
        "kernel kills; this empties the device's file cache",
    )
    parser.add_argument(
        "--hub",
        metavar="URL|FILE",
        help="also measure the link to a cluster's hub and what a message costs this device: mqtt://HOST:PORT, or a "
        "worker's join file",
    )
    parser.add_argument(
        "--meter", metavar="CMD", help="read the power from this command, which prints watts (default: from a sensor)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    add_volume(parser, "where each figure comes from")
    return parser


def doctor_parser() -> Parser:
    """Return the parser of ``hyps-run doctor``."""
    parser = Parser(
        prog="hyps-run doctor",
        description="Check whether this device has what hyps-run needs and what fits it; print one line a check, with a "
        "remedy for what is wrong. The exit code is 1 if a check says FAIL.",
        examples=("hyps-run doctor bundle",),
    )
    parser.add_argument(
        "bundle", nargs="?", type=Path, metavar="DIR", help="check whether this bundle fits (default: which budgets fit)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="measure the storage that holds DIR (default: the current folder)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list of check, state, found and mend")
    add_volume(parser, "how long each check took", quiet="leave out the checks that say ok")
    return parser
