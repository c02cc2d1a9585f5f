"""The addresses at the hub (Kaboubi, section 3.3.1.2: the specific addressing policy), and who may use which.

    hyps/workers/NAME/state    the worker says what it has and that it is there (retained, and its last will)
    hyps/workers/NAME/orders   the manager says which shares the worker holds (retained)
    hyps/workers/NAME/input    tensors to the worker
    hyps/workers/NAME/output   tensors from the worker
    hyps/clients/NAME/submit   tensors of a job to the manager
    hyps/clients/NAME/result   tensors of its result
    hyps/status                what the manager says of all of them (retained), for viewers

All goes through the manager: a worker knows nothing of the others, not even their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from hyps.runtime.errors import HubError

TOPIC_ROOT = "hyps"
STATUS = f"{TOPIC_ROOT}/status"
#: The user that may read and write everything.
MANAGER = "manager"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")


class Role(StrEnum):
    """Whose name stands in a topic."""

    WORKER = "workers"
    CLIENT = "clients"
    VIEWER = "viewers"


#: What a role may do with the last part of its topics: mosquitto's words.
RIGHTS: Mapping[Role, Mapping[str, str]] = {
    Role.WORKER: {"state": "write", "orders": "read", "input": "read", "output": "write"},
    Role.CLIENT: {"submit": "write", "result": "read"},
    Role.VIEWER: {},
}


def checked_name(name: str) -> str:
    """A name that can be a part of a topic, a user and a client of the hub. Raises `HubError`."""
    if not _NAME.match(name) or name == MANAGER:
        raise HubError(f"'{name[:40]}' cannot be a name: take 1 to 32 letters, digits, - and _, and not '{MANAGER}'")
    return name


def access(role: Role, name: str) -> list[str]:
    """The lines of Mosquitto's access list for a user."""
    if role is Role.VIEWER:
        return [f"topic read {STATUS}"]
    return [f"topic {right} {topic(role, name, last)}" for last, right in RIGHTS[role].items()]


def topic(role: Role, name: str, last: str) -> str:
    """``hyps/workers/w1/input``."""
    return f"{TOPIC_ROOT}/{role}/{name}/{last}"


def parse_topic(text: str) -> tuple[Role, str, str] | None:
    """What `topic` was made of; None for any other."""
    fields = text.split("/")
    if len(fields) != 4 or fields[0] != TOPIC_ROOT or fields[1] not in list(Role) or not _NAME.match(fields[2]):
        return None
    return Role(fields[1]), fields[2], fields[3]
