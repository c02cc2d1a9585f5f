"""How to reach the hub: an address alone, or a *join file* that also holds a name, its password and the hub's authority.

Secrets come from files: an argument could be read by everyone in the list of processes.
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
    """Where the hub listens, and whether by TLS."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A join file. ``authority``: the certificate, as PEM, that the hub's must be signed by. Its text shows no secrets."""

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
    """``mqtt://host[:port]`` or ``mqtts://host[:port]``. Raises `HubError`."""
    mend = "give mqtt://HOST:PORT, or mqtts:// for TLS"
    try:
        found = urlsplit(text)
        port = found.port
    except ValueError:
        raise HubError(f"'{text[:80]}' is no address of a hub; {mend}") from None
    if "@" in found.netloc:
        raise HubError("a password in the hub's address can be read in the list of processes; give a join file with --join")
    if found.scheme not in _PORTS or not found.hostname or found.path.strip("/") or found.query or found.fragment:
        raise HubError(f"'{text[:80]}' is no address of a hub; {mend}")
    return Address(host=found.hostname, port=port or _PORTS[found.scheme], tls=found.scheme == "mqtts")


def read_join(path: Path) -> Join:
    """Read a join file. Raises `HubError`, which tells nothing of its contents."""
    try:
        with path.open("rb") as stream:
            join = msgspec.json.decode(stream.read(_LIMIT_BYTES), type=Join)
    except OSError as error:
        raise HubError(f"cannot read {path}: {error.strerror}; make it with 'hyps-manager add-worker'") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise HubError(f"{path} is no join file; make one with 'hyps-manager add-worker'") from None
    parse_address(join.hub)
    return join


def encode_join(join: Join) -> bytes:
    """A join file's content."""
    return msgspec.json.format(msgspec.json.encode(join), indent=1) + b"\n"
