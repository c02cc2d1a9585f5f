"""Name the hub's topics and say who may use which (Kaboubi, section 3.3.1.2: the specific addressing policy).

    hyps/workers/NAME/state    a worker says that it is there and what it has (retained, and its last will)
    hyps/workers/NAME/orders   the manager says which sub-bundles the worker holds (retained)
    hyps/workers/NAME/input    tensors to the worker, and what of them is withdrawn
    hyps/workers/NAME/output   tensors from the worker, and what it says of them and of itself
    hyps/workers/NAME/probe    what the worker sends to itself, to measure its link to the hub
    hyps/clients/NAME/submit   a client's jobs and their input tensors
    hyps/clients/NAME/result   tensors of a job's result
    hyps/status                the manager's status (retained), for viewers

Everything goes through the manager: a worker does not even know the names of the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from hyps.runtime.errors import HubError

TOPIC_ROOT = "hyps"
STATUS = f"{TOPIC_ROOT}/status"
#: The user that may read and write every topic.
MANAGER = "manager"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")


class Role(StrEnum):
    """A kind of user, as it is written in topics."""

    WORKER = "workers"
    CLIENT = "clients"
    VIEWER = "viewers"


class User(NamedTuple):
    """A worker, client or viewer at the hub."""

    role: Role
    name: str


class UserTopic(NamedTuple):
    """A topic of one user, in its parts."""

    user: User
    channel: str


#: What a role may do with each of its channels, in Mosquitto's words.
RIGHTS: Mapping[Role, Mapping[str, str]] = {
    Role.WORKER: {"state": "write", "orders": "read", "input": "read", "output": "write", "probe": "readwrite"},
    Role.CLIENT: {"submit": "write", "result": "read"},
    Role.VIEWER: {},
}


def checked_name(name: str) -> str:
    """Return ``name`` if it can be part of a topic and a user of the hub; else raise `HubError`."""
    if not _NAME.match(name) or name == MANAGER:
        raise HubError(f"'{name[:40]}' cannot be a name: take 1 to 32 letters, digits, - and _, and not '{MANAGER}'")
    return name


def access_rules(role: Role, name: str) -> list[str]:
    """Return a user's lines in Mosquitto's access list."""
    if role is Role.VIEWER:
        return [f"topic read {STATUS}"]
    return [f"topic {right} {topic(role, name, channel)}" for channel, right in RIGHTS[role].items()]


def topic(role: Role, name: str, channel: str) -> str:
    """Return a user's topic, such as ``hyps/workers/w1/input``."""
    return f"{TOPIC_ROOT}/{role}/{name}/{channel}"


def parse_topic(text: str) -> UserTopic | None:
    """Return the parts of a user's topic, or None for any other topic."""
    fields = text.split("/")
    if len(fields) != 4 or fields[0] != TOPIC_ROOT or fields[1] not in list(Role) or not _NAME.match(fields[2]):
        return None
    return UserTopic(User(Role(fields[1]), fields[2]), fields[3])
