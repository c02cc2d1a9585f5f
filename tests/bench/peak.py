"""Run a command from a small process and print its peak resident memory in bytes as the last line.

A child's peak counts what its parent held when it was started, so a large benchmark process cannot measure it itself.

    python -m tests.bench.peak COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import resource
import subprocess
import sys


def main() -> None:
    """Run, print the peak, pass the exit status on."""
    status = subprocess.run(sys.argv[1:], check=False).returncode
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    sys.exit(status)


if __name__ == "__main__":
    main()
