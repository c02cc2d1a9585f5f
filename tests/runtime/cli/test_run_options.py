"""Contradicting options of ``hyps-run`` are refused when the options are made, in one line that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyps.runtime.cli.options import run_parser
from hyps.runtime.cli.run_options import run_options
from hyps.runtime.errors import RuntimeFault

CONTRADICTIONS = {
    "batch and repeat": (["--batch", "2", "--repeat", "2"], "--batch cannot be combined with --repeat"),
    "batch and profile": (["--batch", "2", "--profile"], "--batch cannot be combined with --repeat, --profile"),
    "batch and profile file": (["--batch", "2", "--profile-json", "p"], "--batch cannot be combined with"),
    "batch and save": (["--batch", "2", "--save", "x.npz"], "--batch cannot be combined with"),
    "engine and batch": (["--engine", "mqtt://h:1", "--batch", "2"], "--engine and --join cannot be combined with --batch"),
    "join and threads": (["--join", "x.join", "--threads", "1"], "--engine and --join cannot be combined with"),
    "engine and profile": (["--engine", "dask://local", "--profile"], "--engine and --join cannot be combined with"),
    "engine and operators": (["--engine", "dask://local", "--custom-ops", "x.so"], "--custom-ops; leave these out"),
    "Dask and join": (["--engine", "dask://local", "--join", "x.join"], "--join is for a hub"),
    "output and json": (["--output", "r.jsonl", "--json"], "--output cannot be combined with"),
    "output and repeat": (["--output", "r.jsonl", "--repeat", "2"], "--output cannot be combined with --repeat"),
    "output and save": (["--output", "r.jsonl", "--save", "x.npz"], "--output cannot be combined with"),
    "unknown engine": (["--engine", "foo://host"], "'foo://host' names no engine; give mqtt://HOST:PORT or mqtts://"),
    "engine without a scheme": (["--engine", "host:1883"], "'host:1883' names no engine; give mqtt://HOST:PORT"),
    "engine misspelt": (["--engine", "mqqt://host"], "did you mean 'mqtt'? give mqtt://HOST:PORT"),
    "empty engine": (["--engine", ""], "'' names no engine; give mqtt://HOST:PORT"),
    "energy and batch": (["--energy", "--batch", "2"], "--energy repeats one input on this device; leave out --engine"),
    "energy and engine": (["--energy", "--engine", "mqtt://h:1"], "'hyps-manager status' shows a cluster's energy"),
    "energy and output": (["--energy", "--output", "r.jsonl"], "--energy repeats one input on this device"),
    "meter alone": (
        ["--meter", "echo 5"],
        "--meter is for --energy, and --watts for that, --energy-limit or --exit-policy; add one",
    ),
    "watts alone": (
        ["--watts", "1,2"],
        "--meter is for --energy, and --watts for that, --energy-limit or --exit-policy; add one",
    ),
    "no file": (["--save", "/"], "--save '/' names no file"),
}


@pytest.mark.parametrize(("arguments", "reason"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused(arguments: list[str], reason: str) -> None:
    with pytest.raises(RuntimeFault) as caught:
        run_options(run_parser().parse_args(["bundle", "x.jpg", *arguments]))
    assert reason in str(caught.value)


def test_options_are_parsed_into_three_groups() -> None:
    line = ["bundle", "a.jpg", "b.jpg", "--repeat", "3", "--no-verify", "-v", "--json"]
    options = run_options(run_parser().parse_args(line))
    assert options.inputs == ("a.jpg", "b.jpg")
    assert (options.engine.bundle, options.engine.repeat, options.engine.batch) == (Path("bundle"), 3, 1)
    assert (options.engine.verify, options.engine.is_remote) == (False, False)
    assert options.engine.profile, "--verbose reports each step"
    assert (options.report.json, options.report.verbose, options.report.profile) == (True, True, False)
    assert run_options(run_parser().parse_args(["b", "x", "--batch", "2", "-v"])).engine.batch == 2
