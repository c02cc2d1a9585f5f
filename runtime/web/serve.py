"""Run the manager with its page: ``hyps-manager --web``."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from pathlib import Path

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.errors import HubError
from hyps.runtime.suggestions import install
from hyps.runtime.terminal.parser import count, size

_PORT = 8765
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def add_web(parser: argparse.ArgumentParser) -> None:
    """Add the page's options."""
    page = parser.add_argument_group("the web page")
    page.add_argument(
        "--web",
        nargs="?",
        const=f"127.0.0.1:{_PORT}",
        metavar="ADDRESS:PORT",
        help=f"serve the page (default 127.0.0.1:{_PORT})",
    )
    page.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve the page with TLS and this certificate")
    page.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key")
    page.add_argument("--token-file", type=Path, metavar="FILE", help="read the token from a file, do not make one")
    page.add_argument(
        "--library", type=Path, default=Path("hyps-library"), metavar="DIR", help="models and bundles (default hyps-library)"
    )
    page.add_argument("--upload-limit", type=size, default=4 << 30, metavar="SIZE", help="largest model file (default 4GiB)")
    page.add_argument("--input-limit", type=size, default=64 << 20, metavar="SIZE", help="largest input (default 64MiB)")
    page.add_argument("--build-memory", type=size, default=4 << 30, metavar="SIZE", help="for compiling (default 4GiB)")
    page.add_argument("--build-seconds", type=count, default=900, metavar="S", help="seconds for compiling (default 900)")


def serve(
    options: argparse.Namespace,
    join: Join,
    cluster_options: ClusterOptions,
    journal: Path | None,
    say: Callable[[str], None],
) -> None:
    """Serve until interrupted, or until the manager fails. Raises `RuntimeFault`."""
    try:
        from hyps.runtime.web.app import application
        from hyps.runtime.web.server import Server
    except ImportError:
        raise HubError(f"the page needs more packages; {install('web')}") from None
    from hyps.runtime.web.cluster import Cluster
    from hyps.runtime.web.library import Library
    from hyps.runtime.web.services import WebServices

    host, port = _address(options.web)
    if (options.tls_cert is None) != (options.tls_key is None):
        raise HubError("--tls-cert and --tls-key go together")
    tls = (options.tls_cert, options.tls_key) if options.tls_cert else None
    given: Path | None = options.bundle.resolve() if options.bundle else None
    if given:
        read_manifest(given)  # a wrong bundle is refused before the wait for the hub
    services: WebServices | None = None
    cluster = Cluster(
        join,
        cluster_options,
        options.listen,
        (lambda line: None) if options.quiet else say,
        lambda: services.pump.poke() if services else None,
    )
    library = Library(options.library.absolute(), given, limit_bytes=options.upload_limit)
    services = WebServices(
        cluster,
        library,
        (given, journal) if given and journal else None,
        build_bytes=options.build_memory,
        build_s=options.build_seconds,
        input_bytes=options.input_limit,
    )
    token = _token(options.token_file)
    server = Server(application(services, token), host, port, tls)
    cluster.open()
    try:
        if given:
            services.serve(given.name)
        services.pump.start()
        server.start()
        scheme = "https" if tls else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}/"
        say(f"the page: {url}" + ("" if options.token_file else f"#token={token}"))
        if not tls and host not in _LOOPBACK:
            say("the token is sent unencrypted, and anyone on the network can read it; add --tls-cert and --tls-key")
        cluster.ended.wait()
    finally:
        services.close()
        server.close()
    if cluster.fault:
        raise cluster.fault


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise HubError(f"--web {text[:80]} is not an address; give for example 127.0.0.1:{_PORT} or :{_PORT}")
    return host, int(port)


def _token(path: Path | None) -> str:
    if path is None:
        return secrets.token_urlsafe(24)
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not a text file'}") from None
    if len(token) < 16:
        raise HubError(f"the token in {path} is too short; it needs 16 characters or more")
    return token
