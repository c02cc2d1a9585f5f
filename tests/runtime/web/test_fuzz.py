"""The REST interface keeps to its own OpenAPI description, whatever comes (schemathesis)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.runtime.web.conftest import Web


def test_whatever_comes(web: Web, bin_folder: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        bin_folder / "schemathesis", "run", f"{web.url}/openapi.json", "-H", f"Authorization: Bearer {web.token}",
        "--exclude-path", "/api/events", "--phases", "fuzzing,coverage", "--checks", "all", "--max-examples", "8",
        "--seed", "1", "--generation-deterministic",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 2" in done.stdout  # more than twenty
    log = web.devices.log("manager")
    assert "Traceback" not in log
    assert "a bug" not in log
    assert web.get("/healthz") == {"hub": True}
