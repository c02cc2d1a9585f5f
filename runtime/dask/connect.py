"""Connect to a running Dask cluster, or start one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hyps.runtime.device.available_memory import available_memory
from hyps.runtime.device.process_memory import LEAN_ENVIRONMENT
from hyps.runtime.errors import EngineError
from hyps.runtime.suggestions import install

try:
    import dask
    from distributed import Client, LocalCluster, Security
except ImportError:
    raise EngineError(f"dask://... needs the distributed library; {install('dask')}") from None

_WAIT_S = 10
#: The share of the free memory that all workers of a cluster of our own get together.
_FREE_SHARE = 0.8
_DEFAULT_PORT = 8786


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskCluster:
    """A client of a cluster whose scheduler is at ``host`` and ``port``; ``own`` is the cluster that was started here."""

    client: Any
    host: str
    port: int
    tls: bool
    own: Any = None

    def memory_bytes(self) -> dict[str, int]:
        """Return, by worker address, the memory that each worker may hold. Raises `EngineError` where none states it."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        stated = {address: int(each["resources"].get("memory", 0)) for address, each in sorted(workers.items())}
        usable = {address: nbytes for address, nbytes in stated.items() if nbytes > 0}
        if not usable:
            raise EngineError("no Dask worker states its memory; start them with 'dask worker ... --resources memory=BYTES'")
        return usable

    def close(self) -> None:
        """Leave the cluster, and end one that was started here."""
        self.client.close()
        if self.own:
            self.own.close()


def check_url(url: str) -> tuple[str, str, int]:
    """Return the scheme, the host and the port of a cluster's address. Raises `EngineError`."""
    try:
        parts = urlsplit(url)
        host, port, scheme = parts.hostname or "", parts.port or _DEFAULT_PORT, parts.scheme
    except ValueError:
        host, port, scheme = "", 0, ""
    if scheme not in ("dask", "dask+tls") or not host or parts.path.strip("/") or parts.username:
        raise EngineError(f"'{url}' is not a Dask cluster; give dask://HOST:PORT, dask+tls://HOST:PORT or dask://local")
    return scheme, host, port


def connect(url: str) -> DaskCluster:
    """Connect to dask://HOST:PORT or dask+tls://HOST:PORT, or start dask://local. Raises `EngineError`."""
    scheme, host, port = check_url(url)
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.ERROR)  # silences the loss of a worker, whose tasks run again
    if host == "local":
        return _local()
    tls = scheme == "dask+tls"
    security: Any = Security() if tls else None
    if security and not (security.tls_ca_file and security.tls_client_cert):
        raise EngineError("dask+tls:// needs certificates: name them in Dask's configuration, distributed.comm.tls")
    try:
        client = Client(
            f"{'tls' if tls else 'tcp'}://{host}:{port}", timeout=_WAIT_S, security=security, set_as_default=False
        )
        client.wait_for_workers(1, timeout=_WAIT_S)
    except (OSError, TimeoutError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EngineError(f"no Dask scheduler with workers at {host}:{port}: {reason}") from None
    return DaskCluster(client=client, host=host, port=port, tls=tls)


def _local() -> DaskCluster:
    """Start a worker for each core, with an equal share of the free memory."""
    count = os.cpu_count() or 1
    memory_bytes = int(available_memory().available_bytes * _FREE_SHARE / count)
    with dask.config.set({"distributed.nanny.pre-spawn-environ": dict(LEAN_ENVIRONMENT)}):
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0,
            resources={"memory": memory_bytes},
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        )
    client = Client(cluster, set_as_default=False)
    client.wait_for_workers(count, timeout=_WAIT_S)
    return DaskCluster(client=client, host="127.0.0.1", port=_DEFAULT_PORT, tls=False, own=cluster)
