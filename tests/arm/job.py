"""On the board, as process 1: run the job that the kernel's command line names, report in one line of JSON, switch off.

Needs Python's standard library alone. The command runs in a process of its own, which is sampled while it runs; its peak
(``ru_maxrss``, the same counter as VmHWM) and its end come from ``wait4``, so they are known even when it was killed.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

MARK = "HYPS-REPORT "
SAMPLE_S = 0.25
DISKS = ("vda", "vdb")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def main() -> None:
    """Run, report, switch off whatever happened."""
    try:
        words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
        report = execute(json.loads(base64.b64decode(words["hyps.job"])))
    except Exception as error:
        report = {"error": f"{type(error).__name__}: {error}"}
    print(f"\n{MARK}{json.dumps(report)}", flush=True)
    subprocess.run(["/bin/busybox", "poweroff", "-f"], check=False)


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Run ``job['command']`` with the kernel settings ``job['settings']``; return all that was measured."""
    for path, value in job["settings"].items():
        Path(path).write_text(value)
    memory, read_before, started = _fields("/proc/meminfo"), _read_bytes(), time.monotonic()
    with Path("/tmp/stdout").open("wb") as out, Path("/tmp/stderr").open("wb") as err:
        child = subprocess.Popen(job["command"], stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=ENVIRONMENT)
        most, status, usage = _watch(child.pid)
    child.returncode = os.waitstatus_to_exitcode(status)
    log = subprocess.run(["/bin/busybox", "dmesg"], capture_output=True, text=True, check=False).stdout
    saved = Path(job["saves"])
    return {
        "exit": child.returncode,
        "seconds": time.monotonic() - started,
        "peak_bytes": usage.ru_maxrss * 1024,
        "anonymous_bytes": most.get("RssAnon", 0),
        "file_bytes": most.get("RssFile", 0),
        "major_faults": usage.ru_majflt,
        "read_bytes": {disk: count - read_before[disk] for disk, count in _read_bytes().items()},
        "memory_bytes": memory["MemTotal"],
        "available_bytes": memory["MemAvailable"],
        "out_of_memory": [line for line in log.splitlines() if "Out of memory" in line],
        "stdout": Path("/tmp/stdout").read_text(),
        "stderr": Path("/tmp/stderr").read_text()[-4000:],
        "saved": base64.b64encode(saved.read_bytes()).decode() if saved.exists() else "",
    }


def _watch(pid: int) -> tuple[dict[str, int], int, Any]:
    """Wait for a process; its fields at the sample when most was resident, its status and its resource usage."""
    most: dict[str, int] = {}
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return most, status, usage
        now = _fields(f"/proc/{pid}/status")
        if now.get("VmRSS", 0) > most.get("VmRSS", 0):
            most = now
        time.sleep(SAMPLE_S)


def _fields(path: str) -> dict[str, int]:
    """The fields of a file of the kernel's that are numbers of kB, in bytes."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def _read_bytes() -> dict[str, int]:
    """Bytes read from each disk so far: the third number of its statistics counts sectors of 512 bytes."""
    return {disk: int(Path(f"/sys/block/{disk}/stat").read_text().split()[2]) * 512 for disk in DISKS}


if __name__ == "__main__":
    main()
