"""Read and write join files: a hub's address, and optionally a user's name, its password and the hub's authority.

Secrets come from files, because everyone can read arguments in the list of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from hyps.runtime.errors import HubError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LIMIT_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address at which a hub listens, and whether it speaks TLS."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of a join file; its ``repr`` shows no secrets.

    ``authority``: the certificate, as PEM, of the authority that must have signed the hub's certificate.
    """

    hub: Annotated[str, Meta(max_length=300)]
    name: Annotated[str, Meta(max_length=32)] | None = None
    password: Annotated[str, Meta(max_length=200)] | None = None
    authority: str | None = None

    def __repr__(self) -> str:
        return f"Join({self.hub!r}, {self.name!r})"

    @property
    def address(self) -> Address:
        """The parsed address. Raises `HubError`."""
        return parse_address(self.hub)


def parse_address(text: str) -> Address:
    """Parse ``mqtt://host[:port]`` or ``mqtts://host[:port]``. Raises `HubError`."""
    remedy = "give mqtt://HOST:PORT, or mqtts:// for TLS"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise HubError(f"'{text[:80]}' is not an address of a hub; {remedy}") from None
    if "@" in url.netloc:
        raise HubError("a password in the hub's address can be read in the list of processes; give a join file with --join")
    if url.scheme not in _PORTS or not url.hostname or url.path.strip("/") or url.query or url.fragment:
        raise HubError(f"'{text[:80]}' is not an address of a hub; {remedy}")
    return Address(host=url.hostname, port=port or _PORTS[url.scheme], tls=url.scheme == "mqtts")


def read_join(path: Path) -> Join:
    """Read a join file. Raises `HubError`, whose text shows nothing of the content."""
    try:
        with path.open("rb") as stream:
            join = msgspec.json.decode(stream.read(_LIMIT_BYTES), type=Join)
    except OSError as error:
        raise HubError(f"cannot read {path}: {error.strerror}; make it with 'hyps-manager add-worker'") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise HubError(f"{path} is not a join file; make one with 'hyps-manager add-worker'") from None
    parse_address(join.hub)
    return join


def encode_join(join: Join) -> bytes:
    """Return a join file's content."""
    return msgspec.json.format(msgspec.json.encode(join), indent=1) + b"\n"


def resolve_join(hub: str | None, join_file: Path | None, hub_option: str = "--hub", join_option: str = "--join") -> Join:
    """Return how to reach a hub; an address replaces that of the join file. Raises `HubError`."""
    join = read_join(join_file) if join_file else None
    if hub is None:
        if join is None:
            raise HubError(f"name the hub: {hub_option} mqtt://HOST:PORT, or {join_option} FILE")
        return join
    resolved = msgspec.structs.replace(join, hub=hub) if join else Join(hub=hub)
    if resolved.password and not resolved.address.tls:
        raise HubError(f"the join file's secret would travel unencrypted: give {hub_option} as mqtts://")
    return resolved
