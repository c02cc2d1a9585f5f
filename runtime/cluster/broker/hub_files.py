"""Write all files that Mosquitto needs to be the communication hub (Kaboubi, sections 3.3.1.2 and 3.3.4.2).

A credential may use only its own topics, by an access list that names each (`hyps.runtime.cluster.protocol.topics`). A
stolen credential reads no other user's tensors. The hub keeps nothing that is not also stored elsewhere. A broker that
is killed forgets what it acknowledged since it last saved (measured, Mosquitto 2.0.11).
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hyps.runtime.cluster.broker.certificates import make_certificates
from hyps.runtime.cluster.broker.join import Join, encode_join, read_join
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES, QUEUED_BYTES
from hyps.runtime.cluster.protocol.topics import MANAGER, TOPIC_ROOT, Role, access_rules, checked_name
from hyps.runtime.errors import HubError
from hyps.runtime.signals import commit

CONFIGURATION, PASSWORDS, ACCESS, MANAGER_JOIN = "mosquitto.conf", "passwords", "access", "manager.join"
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}\Z")


def init_hub(folder: Path, hosts: Sequence[str], port: int) -> None:
    """Write a hub's files into a new ``folder``; boards reach the hub at the first of ``hosts``. Raises `HubError`."""
    for host in hosts:
        if not _HOST.match(host):
            raise HubError(f"'{host[:80]}' is not a name or an address of a host")
    path = folder.absolute()
    if not path.as_posix().isprintable() or " " in path.as_posix():
        raise HubError(f"'{folder}': Mosquitto's configuration takes no spaces in paths; name another folder")
    if folder.exists():
        raise HubError(f"{folder} exists: its credentials would be lost; remove it, or name another folder")
    certificates = make_certificates(hosts)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))  # readable by its owner only
        try:
            (partial / "data").mkdir()
            write_secret(partial / "authority.crt", certificates.authority)
            write_secret(partial / "authority.key", certificates.authority_key)
            write_secret(partial / "hub.crt", certificates.hub)
            write_secret(partial / "hub.key", certificates.hub_key)
            host = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
            address = f"mqtts://{host}:{port}"
            password = secrets.token_urlsafe(24)
            join = Join(hub=address, name=MANAGER, password=password, authority=certificates.authority.decode())
            write_secret(partial / MANAGER_JOIN, encode_join(join))
            write_secret(partial / PASSWORDS, f"{_hashed(MANAGER, password)}\n".encode())
            write_secret(partial / ACCESS, f"user {MANAGER}\ntopic readwrite {TOPIC_ROOT}/#\n".encode())
            write_secret(partial / CONFIGURATION, configuration(path, port).encode())
            with commit():
                partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise HubError(f"cannot write {folder}: {error.strerror}") from None


def configuration(folder: Path, port: int) -> str:
    """Return the configuration of a Mosquitto 2 with its files in ``folder``; each unusual line says why it is there."""
    return f"""\
# Written by 'hyps-manager init-hub'. Start the hub with: mosquitto -c {folder / CONFIGURATION}
listener {port}
# Without this, every acknowledged message waits 40 ms.
set_tcp_nodelay true
user {getpass.getuser()}

cafile {folder}/authority.crt
certfile {folder}/hub.crt
keyfile {folder}/hub.key
tls_version tlsv1.2

allow_anonymous false
password_file {folder / PASSWORDS}
acl_file {folder / ACCESS}
# No user can take another's session.
use_username_as_clientid true

persistence true
persistence_location {folder}/data/
autosave_interval 60
persistent_client_expiration 1d

# Announced to MQTT 5 clients: a larger message is refused, not silently dropped.
max_packet_size {FRAME_LIMIT_BYTES + ENVELOPE_BYTES}
# As many as the client allows.
max_inflight_messages 0
# A receiver that is slower than the sender needs a queue for one job's largest tensor; the manager sends no more at a time.
max_queued_messages 1000
max_queued_bytes {QUEUED_BYTES}
max_keepalive 60
max_connections 256

log_dest stderr
log_type error
log_type warning
log_type notice
"""


def add_user(folder: Path, role: Role, name: str) -> Join:
    """Create a user's credential, or replace it, and return the join file; the hub reads it on SIGHUP. Raises `HubError`."""
    checked_name(name)
    if not (folder / MANAGER_JOIN).exists():
        raise HubError(
            f"{folder} is not a hub's folder; make one with 'hyps-manager init-hub DIR', or name it with --hub-dir"
        )
    manager = read_join(folder / MANAGER_JOIN)
    password = secrets.token_urlsafe(24)
    try:
        kept = [line for line in (folder / PASSWORDS).read_text().splitlines() if not line.startswith(f"{name}:")]
        rights = _sections((folder / ACCESS).read_text())
        rights[name] = access_rules(role, name)
        text = "\n".join("\n".join([f"user {user}", *lines]) for user, lines in rights.items())
        write_secret(folder / ACCESS, f"{text}\n".encode())
        write_secret(folder / PASSWORDS, "\n".join([*kept, _hashed(name, password), ""]).encode())
    except OSError as error:
        raise HubError(f"cannot change {folder}: {error.strerror}") from None
    return Join(hub=manager.hub, name=name, password=password, authority=manager.authority)


def _sections(text: str) -> dict[str, list[str]]:
    """Return the access list's lines by user."""
    sections: dict[str, list[str]] = {}
    user = ""
    for line in text.splitlines():
        if line.startswith("user "):
            user = line.removeprefix("user ")
            sections[user] = []
        elif line:
            sections.setdefault(user, []).append(line)
    return sections


def _hashed(name: str, password: str) -> str:
    """Return a line of Mosquitto's password file: PBKDF2 with SHA-512 (form 7); few rounds suffice for random passwords."""
    rounds, salt = 101, secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"{name}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    partial.replace(path)
