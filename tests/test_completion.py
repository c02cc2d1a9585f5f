"""The completion scripts that the commands print are current, and complete what they should in the installed shells."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hyps.compiler.target_files import target_names
from hyps.models.catalogue import NETWORKS
from hyps.runtime.terminal.parser import SHELLS
from tests.completions import scripts
from tests.waiting import PATIENCE_S

#: A line that is typed, the words that must be offered, and those that must not.
CASES = [
    ("hyps-run --to", {"--top"}, {"--threads"}),
    ("hyps-run --profile", {"--profile", "--profile-json"}, set()),
    ("hyps-run ca", {"calibrate"}, {"doctor"}),
    ("hyps-run my", {"mybundle"}, {"myfile.npy"}),
    ("hyps-run mybundle --se", set(), {"--save"}),
    ("hyps-run mybundle --q", {"--quiet"}, set()),
    ("hyps-run --show-completion ", set(SHELLS), {"mybundle"}),
    ("hyps-run calibrate --test", {"--test-memory"}, set()),
    ("hyps-run calibrate --top", set(), {"--top"}),
    ("hyps-run calibrate --folder my", {"mybundle"}, {"myfile.npy"}),
    ("hyps-run doctor --j", {"--json"}, set()),
    ("hyps-manager add-", {"add-worker", "add-client", "add-viewer"}, {"serve"}),
    ("hyps-manager --rep", {"--replicas"}, set()),
    ("hyps-manager init-hub --p", {"--port"}, set()),
    ("hyps-worker --sub-", {"--sub-hub", "--sub-join"}, set()),
    ("hypsc comp", {"compile"}, {"inspect"}),
    ("hypsc compile --target rpi3", {"rpi3b", "rpi3b-plus"}, {"rpi5-4gb"}),
    ("hypsc compile --split ", {"auto", "mandatory", "pooling", "layers"}, set()),
    ("hypsc compile --preprocess image", {"imagenet", "imagenet-caffe"}, {"raw"}),
    ("hypsc targets show ", set(target_names()), {"mybundle"}),
    ("hypsc models build ", set(NETWORKS), {"mybundle"}),
    ("hypsc analyze -", {"--quiet", "--verbose", "--csv"}, set()),
    ("hypsc analyze --sort ", {"order", "weights", "activations", "macs", "live", "alone"}, set()),
]
BASH = """
source <(python -c 'pass'; {program} --show-completion{shell})
compopt() {{ :; }}
COMP_LINE={line!r}
read -ra COMP_WORDS <<< "$COMP_LINE"
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
specified=$(complete -p {program})
function=${{specified##*-F }}
${{function%% *}} {program}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds a bundle's folder and a file."""
    place = tmp_path_factory.mktemp("completion")
    (place / "mybundle").mkdir()
    (place / "myfile.npy").touch()
    return place


def shell(name: str, text: str, folder: Path, bin_folder: Path) -> set[str]:
    """Return the words that a shell's script prints, without their descriptions."""
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(folder), "SHELL": f"/bin/{name}"}
    done = subprocess.run([name, "-c", text], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return {line.split("\t")[0].rstrip("/") for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize(("line", "offered", "not_offered"), CASES, ids=[line for line, *_ in CASES])
def test_bash(folder: Path, bin_folder: Path, line: str, offered: set[str], not_offered: set[str]) -> None:
    program = line.split()[0]
    text = BASH.format(program=program, line=line, shell="" if program == "hypsc" else " bash")
    found = shell("bash", text, folder, bin_folder)
    assert found >= offered
    assert not found & not_offered or line.endswith(tuple(not_offered))


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish: run 'make setup-system' as root (Debian)")
@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [case for case in CASES if not case[0].startswith("hypsc ")],
    ids=[line for line, *_ in CASES if not line.startswith("hypsc ")],
)
def test_fish(folder: Path, bin_folder: Path, line: str, offered: set[str], not_offered: set[str]) -> None:
    text = f'{line.split()[0]} --show-completion fish | source; complete -C "{line}"'
    found = shell("fish", text, folder, bin_folder)
    assert found >= offered
    assert line.startswith("hyps-run my") or not found & not_offered  # fish offers files at every position


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh: run 'make setup-system' as root (Debian)")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("hyps-run --no-v", "hyps-run --no-verify"),
        ("hyps-run cali", "hyps-run calibrate"),
        ("hyps-run calibrate --te", "hyps-run calibrate --test-memory"),
        ("hyps-run mybundle --threads 2 --qui", "hyps-run mybundle --threads 2 --quiet"),
        ("hyps-run --show-completion f", "hyps-run --show-completion fish"),
        ("hyps-worker --cache my", "hyps-worker --cache mybundle"),
    ],
)
def test_zsh(folder: Path, bin_folder: Path, typed: str, completed: str) -> None:
    """The line is typed, followed by a tab."""
    import pty

    program = typed.split()[0]
    script = subprocess.run(
        [bin_folder / program, "--show-completion", "zsh"], capture_output=True, text=True, check=True
    ).stdout
    (folder / "script.zsh").write_text(script)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"TERM": "dumb", "PS1": "> ", "HOME": str(folder)})
    shown = b""

    def until(what: str) -> None:
        nonlocal shown
        limit = time.monotonic() + PATIENCE_S
        while what.encode() not in shown and time.monotonic() < limit:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65_536)
        assert what in shown.decode(), shown.decode()

    try:
        os.write(terminal, b"autoload -Uz compinit; compinit -D -u; source ./script.zsh; echo rea''dy\n")
        until("ready")
        shown = b""
        os.write(terminal, f"echo '['{typed}\t".encode().replace(b"echo '['", b""))
        until(completed.removeprefix(typed))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


@pytest.mark.parametrize(("path", "text"), list(scripts()), ids=lambda each: each.name if isinstance(each, Path) else "")
def test_the_scripts_are_current(path: Path, text: str) -> None:
    """After a change of the options: ``python -m tests.completions``."""
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("given", "code"), [(["tcsh"], 2), ([], 0)])
def test_the_shell_is_named_or_the_users_own(bin_folder: Path, given: list[str], code: int) -> None:
    command = [str(bin_folder / "hyps-run"), "--show-completion", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"SHELL": "/usr/bin/fish"})
    assert done.returncode == code
    assert "complete -c hyps-run" in done.stdout if code == 0 else done.stderr.count("\n") == 1
    unknown = subprocess.run(command[:2], capture_output=True, text=True, check=False, env=os.environ | {"SHELL": ""})
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
