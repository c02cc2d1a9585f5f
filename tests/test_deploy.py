"""Test that systemd and Compose accept the files of docs/deploy, and that our commands accept theirs."""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyps.runtime.cli.options import run_parser
from hyps.runtime.cluster.broker.join import read_join
from hyps.runtime.cluster.cli import manager as manager_cli
from hyps.runtime.cluster.cli import worker as worker_cli
from hyps.runtime.terminal.parser import size
from tests.programs import program
from tests.repository import ROOT
from tests.waiting import PATIENCE_S

DEPLOY = ROOT / "docs" / "deploy"
README = (DEPLOY / "README.md").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = DEPLOY / "container" / "compose.yaml"
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "hyps-manager": manager_cli.manager_parser,
    "hyps-worker": worker_cli.worker_parser,
    "hyps-run": run_parser,
}
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
SCRIPT: str = SERVICES["init"]["command"][-1]
#: A command up to what the shell takes from there.
OURS = re.compile(rf"\b(?:{'|'.join(PARSERS)}) [^<>|&`\n]+")


def unit_of(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    return unit


def words_of(service: dict[str, Any]) -> list[str]:
    command = service.get("command", [])
    return [*service.get("entrypoint", []), *(shlex.split(command) if isinstance(command, str) else command)]


def commands() -> Iterator[Any]:
    """Every command of ours, in words."""
    for path in UNITS:
        start = unit_of(path)["Service"]["ExecStart"]
        environment = f"/etc/hyps/{path.stem.removeprefix('hyps-')}.env"
        for options in ("", *re.findall(rf"OPTIONS=(--.+?)(?: in|' >) {environment}", path.read_text() + README)):
            words = shlex.split(start.replace("$OPTIONS", options))
            if Path(words[0]).name in PARSERS:
                yield pytest.param([Path(words[0]).name, *words[1:]], id=f"{path.name} {options}")
    for name, service in SERVICES.items():
        if (words := words_of(service)) and words[0] in PARSERS:
            yield pytest.param(words, id=f"compose.yaml {name}")
    for text, where in ((SCRIPT, "init"), ("\n".join(blocks()), "README.md")):
        for found in OURS.findall(text):
            yield pytest.param(shlex.split(found), id=f"{where}: {found}")


def blocks() -> list[str]:
    return re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def parsed(words: list[str]) -> argparse.Namespace:
    return PARSERS[words[0]]().parse_args(words[1:])


def test_commands_are_found() -> None:
    found = [each.id for each in commands()]
    assert [sum(each.startswith(path.name) for each in found) for path in UNITS] == [0, 2, 3]  # without and with OPTIONS
    assert {"compose.yaml manager", "compose.yaml w1", "compose.yaml w2", "compose.yaml client"} <= {*found}
    assert sum(each.startswith("init: ") for each in found) == SCRIPT.count("hyps-manager") == 4
    assert sum(each.startswith("README.md: ") for each in found) == 4


@pytest.mark.parametrize("words", [*commands()])
def test_a_command_is_accepted(words: list[str]) -> None:
    parsed(words)


# systemd


@pytest.fixture
def verify(bin_folder: Path, tmp_path: Path) -> Callable[[Callable[[str], str]], list[str]]:
    """What systemd-analyze says of the units, changed; their programs are made to be there."""
    program("systemd-analyze")
    programs = {"/opt/hyps/bin": str(bin_folder), "/usr/sbin/mosquitto": sys.executable}

    def run(change: Callable[[str], str]) -> list[str]:
        for path in UNITS:
            text = change(path.read_text())
            for ours, there in programs.items():
                text = text.replace(ours, there)
            (tmp_path / path.name).write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S).stderr
        return [line for line in said.splitlines() if "hyps-" in line]

    return run


def test_systemd_takes_the_units(verify: Callable[[Callable[[str], str]], list[str]]) -> None:
    assert verify(lambda text: text) == []


def test_systemd_would_say_what_is_wrong(verify: Callable[[Callable[[str], str]], list[str]]) -> None:
    assert len(verify(lambda text: text.replace("RestartSec=", "RestartSek="))) == len(UNITS) == 3
    assert verify(lambda text: text.replace("bin/hyps-worker --join", "bin/hyps-walker --join"))


@pytest.mark.parametrize(("name", "option", "kind"), [("worker", "cache", "Cache"), ("manager", "journal", "State")])
def test_a_unit_writes_where_it_may_and_has_its_secret_from_a_file(name: str, option: str, kind: str) -> None:
    service = unit_of(DEPLOY / "systemd" / f"hyps-{name}.service")["Service"]
    words = shlex.split(service["ExecStart"].replace("$OPTIONS", ""))
    options = parsed([f"hyps-{name}", *words[1:]])
    base = {"Cache": "/var/cache", "State": "/var/lib"}[kind]
    folder: Path = getattr(options, option)
    assert folder.parent == Path(base, service[f"{kind}Directory"])  # a group's journal lies beside its cache
    credential, source = service["LoadCredential"].split(":")
    assert options.join == Path("${CREDENTIALS_DIRECTORY}", credential)
    assert source == f"/etc/hyps/{name}.join"


# containers


def test_compose_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_volumes_and_limits_fit_together() -> None:
    needed = {name for service in SERVICES.values() for name in service.get("depends_on", ())}
    assert needed == {"init", "hub"}
    assert needed <= SERVICES.keys()
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert {name for name in mounted if not name.startswith("${BUNDLE")} == {*yaml.safe_load(COMPOSE.read_text())["volumes"]}
    workers = {name: parsed(words) for name, service in SERVICES.items() if (words := words_of(service))[0] == "hyps-worker"}
    assert workers.keys() == {"w1", "w2"}
    for name, options in workers.items():
        assert options.memory <= size(f"{SERVICES[name]['mem_limit']}ib") <= 1.2 * options.memory
    assert all("mem_limit" in service for service in SERVICES.values())
    assert parsed(words_of(SERVICES["manager"])).workers == len(workers)


def test_init_makes_each_its_own_secret_once(bin_folder: Path, tmp_path: Path) -> None:
    own = {"manager": "manager", "w1": "w1", "w2": "w2", "client": "me"}
    volumes = dict(volume.split(":") for volume in SERVICES["init"]["volumes"])
    script = SCRIPT.replace("chown -R hyps:hyps", "ls")
    for target in volumes.values():
        (tmp_path / target.lstrip("/")).mkdir()
        script = re.sub(rf"(?<![\w/]){target}\b", f"{tmp_path}{target}", script)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    before: dict[str, bytes] = {}
    for _ in range(2):
        done = subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for service, name in own.items():
            volume, target = SERVICES[service]["volumes"][0].split(":")[:2]
            join_file = tmp_path / volumes[volume].lstrip("/") / "join"
            assert parsed(words_of(SERVICES[service])).join == Path(target, "join")
            assert read_join(join_file).name == name
            assert read_join(join_file).address.host == "hub"
            assert join_file.stat().st_mode & 0o77 == 0
            assert before.setdefault(service, join_file.read_bytes()) == join_file.read_bytes()
    assert (tmp_path / SERVICES["hub"]["command"].split()[-1].lstrip("/")).is_file()


def test_image_is_made_from_what_is_here_for_the_user_of_the_hub(root: Path) -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)", text, re.MULTILINE) for word in line.split()[:-1]]
    assert len(copied) == 8
    assert all((root / each).exists() for each in copied)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert {Path(folder).parts[0] for folder in project["tool"]["setuptools"]["package-dir"].values()} <= {*copied}
    extras = re.search(r"^ARG EXTRAS=(\w+)", text, re.MULTILINE)
    assert extras
    assert extras[1] in project["project"]["optional-dependencies"]
    number = re.search(r"useradd --uid (\d+)", text)
    assert number
    assert SERVICES["hub"]["user"] == f"{number[1]}:{number[1]}"
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["hyps"]
    build = SERVICES["init"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == root
    assert (root / build["dockerfile"]).is_file()
