"""The REST interface keeps to its own OpenAPI description, whatever is sent to it (schemathesis)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.runtime.web.conftest import Web
from tests.waiting import PATIENCE_S


def test_whatever_is_sent(web: Web, bin_folder: Path, tmp_path: Path) -> None:
    """Every operation is tried; that each needs the token is the subject of `test_nobody_without_the_token`."""
    repeatable = ["--seed", "1", "--generation-deterministic"] if os.environ.get("CI") else []
    command: list[str | Path] = [
        bin_folder / "schemathesis", "run", f"{web.url}/openapi.json", "-H", f"Authorization: Bearer {web.token}",
        "--exclude-path", "/api/events", "--phases", "fuzzing,coverage", "--checks", "all",
        "--exclude-checks", "ignored_auth", "--max-examples", "3", *repeatable,
    ]  # fmt: skip
    logged = len(web.devices.log("manager"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    operations = sum(map(len, web.get("/openapi.json")["paths"].values())) - 1
    assert f"Tested: {operations}\n" in done.stdout
    log = web.devices.log("manager")[logged:]
    assert "Traceback" not in log
    assert "a bug" not in log
    assert web.get("/healthz") == {"hub": True}
