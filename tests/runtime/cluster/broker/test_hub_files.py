"""Test the hub of ``hyps-manager init-hub``, run by the real Mosquitto: who gets in, and who reads what."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.hub_files import add_user, init_hub, write_secret
from hyps.runtime.cluster.broker.join import Join, encode_join, parse_address, read_join
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from hyps.runtime.cluster.protocol.topics import Role, User, UserTopic, parse_topic, topic
from hyps.runtime.errors import HubError
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import PATIENCE_S, wait_for

#: paho leaves the socket to the garbage collector if the handshake fails.
leaves_a_socket = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
Command = Callable[..., subprocess.CompletedProcess[str]]


class Ear:
    """A connection that keeps the messages that it gets."""

    def __init__(self, join: Join, name: str, *topics: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.connection = Connection(join, name, received=self._take, connected=lambda: self.connection.subscribe(topics))
        self.connection.open()

    def await_messages(self, count: int) -> None:
        wait_for(f"{count} messages", lambda: len(self.heard) == count)

    def _take(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        self.heard.append((topic, payload))
        acknowledge()


@pytest.fixture(scope="module")
def hyps_manager(bin_folder: Path) -> Command:
    """Return a function that runs the installed ``hyps-manager`` and checks its errors."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [bin_folder / "hyps-manager", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode == 2:
            assert done.stderr.startswith("hyps-manager: ")
            assert done.stderr.count("\n") == 1, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def hub(mosquitto: str, hyps_manager: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a hub; return its folder, with the join files of workers w1 and w2 and a client c1."""
    folder, port = tmp_path_factory.mktemp("cluster") / "hub", free_port()
    assert hyps_manager("init-hub", folder, "--host", "127.0.0.1", "--port", str(port)).returncode == 0
    for command, name in (("add-worker", "w1"), ("add-worker", "w2"), ("add-client", "c1")):
        done = hyps_manager(command, name, "--hub-dir", folder)
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.join").write_text(done.stdout)
    with running(mosquitto, folder / "mosquitto.conf", port):
        yield folder


@pytest.fixture
def ears(hub: Path) -> Iterator[Callable[..., Ear]]:
    opened: list[Ear] = []

    def listen(name: str, *topics: str) -> Ear:
        opened.append(Ear(read_join(hub / f"{name}.join"), name, *topics))
        return opened[-1]

    yield listen
    for ear in opened:
        ear.connection.close()


def test_a_stolen_credential_reads_nothing_of_others(ears: Callable[..., Ear]) -> None:
    """Whatever w1 subscribes to, it gets only what is meant for w1."""
    thief = ears("w1", "#", "hyps/#", "hyps/workers/#", "hyps/workers/w2/input", "hyps/clients/c1/submit", "$SYS/#")
    manager, victim, client = ears("manager", "hyps/#"), ears("w2", "hyps/workers/w2/input"), ears("c1")
    manager.connection.publish("hyps/workers/w2/orders", b"secret", retain=True)
    manager.connection.publish("hyps/workers/w2/input", b"secret")
    victim.connection.publish("hyps/workers/w2/output", b"secret")
    client.connection.publish("hyps/clients/c1/submit", b"secret")
    manager.connection.publish("hyps/workers/w1/input", b"for w1")
    wait_for("w1's own input", lambda: thief.heard)
    wait_for("w2's input", lambda: victim.heard)
    assert set(thief.heard) == {("hyps/workers/w1/input", b"for w1")}  # the message comes once for each subscription
    manager.connection.publish("hyps/workers/w2/orders", b"", retain=True)


def test_a_stolen_credential_writes_nothing_of_others(ears: Callable[..., Ear]) -> None:
    thief, manager, victim = ears("w1"), ears("manager", "hyps/#"), ears("w2", "hyps/workers/w2/#")
    for name in ("w2/output", "w2/input", "w2/orders", "w2/state", "w1/orders", "w1/input", "w1/output/more"):
        thief.connection.publish(f"hyps/workers/{name}", b"forged")
    for name in ("hyps/clients/c1/submit", "hyps/clients/w1/submit", "elsewhere"):
        thief.connection.publish(name, b"forged")
    thief.connection.publish("hyps/workers/w1/output", b"honest")
    wait_for("w1's output", lambda: manager.heard)
    manager.connection.publish("hyps/workers/w2/input", b"for w2")
    wait_for("w2's input", lambda: victim.heard)
    assert manager.heard == [("hyps/workers/w1/output", b"honest")]
    assert victim.heard == [("hyps/workers/w2/input", b"for w2")]


def test_a_client_hears_its_own_results_alone(ears: Callable[..., Ear]) -> None:
    client, manager = ears("c1", "hyps/#", "hyps/clients/c1/result"), ears("manager")
    manager.connection.publish("hyps/clients/c2/result", b"not for c1")
    manager.connection.publish("hyps/workers/w1/orders", b"not for c1")
    manager.connection.publish("hyps/clients/c1/result", b"for c1")
    wait_for("c1's result", lambda: client.heard)
    assert set(client.heard) == {("hyps/clients/c1/result", b"for c1")}


def test_the_session_of_another_cannot_be_taken(hub: Path, ears: Callable[..., Ear]) -> None:
    """w1 connects as w2: the hub uses the user's name instead, and w2 stays connected."""
    victim, manager = ears("w2", "hyps/workers/w2/input"), ears("manager")
    thief = Ear(read_join(hub / "w1.join"), "w2", "hyps/workers/w2/input")
    try:
        manager.connection.publish("hyps/workers/w2/input", b"for w2")
        wait_for("w2's input", lambda: victim.heard)
        assert thief.heard == []
    finally:
        thief.connection.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"password": "wrong"}, "refuses: Not authorized"),
        ({"name": "w9"}, "refuses: Not authorized"),
        ({"name": None, "password": None}, "refuses: Not authorized"),
    ],
    ids=["wrong password", "unknown name", "no name"],
)
def test_refused_credentials(hub: Path, changes: dict[str, str | None], reason: str) -> None:
    join = msgspec.structs.replace(read_join(hub / "w1.join"), **changes)
    with pytest.raises(HubError, match=reason) as caught:
        Ear(join, "w1")
    assert "wrong" not in str(caught.value)


@leaves_a_socket
def test_a_hub_that_another_authority_signed_is_refused(hub: Path, tmp_path: Path) -> None:
    init_hub(tmp_path / "other", ["127.0.0.1"], 8883)
    other = read_join(tmp_path / "other" / "manager.join")
    join = msgspec.structs.replace(read_join(hub / "w1.join"), authority=other.authority)
    with pytest.raises(HubError, match=r"is not the one of the join file: .*(signature|self-signed|issuer)"):
        Ear(join, "w1")
    with pytest.raises(HubError, match=r"is not the one of the join file: .*self-signed"):
        Ear(msgspec.structs.replace(join, authority=None), "w1")


@leaves_a_socket
def test_a_hub_of_another_name_is_refused(hub: Path) -> None:
    join = read_join(hub / "w1.join")
    with pytest.raises(HubError, match=r"is not the one of the join file: .*IP address mismatch"):
        Ear(msgspec.structs.replace(join, hub=join.hub.replace("127.0.0.1", "127.0.0.2")), "w1")


@leaves_a_socket
def test_a_hub_without_tls_is_refused(open_hub: Join) -> None:
    with pytest.raises(HubError, match=r"does not speak TLS|cannot reach"):
        Ear(Join(hub=open_hub.hub.replace("mqtt:", "mqtts:")), "w1")


def test_a_hub_that_is_not_there() -> None:
    with pytest.raises(HubError, match=r"^cannot reach the hub at mqtt://127.0.0.1:\d+: .*refused; is it running\?$"):
        Ear(Join(hub=f"mqtt://127.0.0.1:{free_port()}"), "w1")


def test_workers_join_a_hub_that_runs(hub: Path, mosquitto: str, tmp_path: Path) -> None:
    folder, port = tmp_path / "hub", free_port()
    init_hub(folder, ["127.0.0.1"], port)
    with running(mosquitto, folder / "mosquitto.conf", port) as process:
        join = add_user(folder, Role.WORKER, "late")
        with pytest.raises(HubError, match="Not authorized"):
            Ear(join, "late")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        first = Ear(join, "late")
        first.connection.close()
        renewed = add_user(folder, Role.WORKER, "late")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        Ear(renewed, "late").connection.close()
        with pytest.raises(HubError, match="Not authorized"):
            Ear(join, "late")


def test_the_hub_publishes_the_last_will_of_a_lost_device(ears: Callable[..., Ear], hub: Path) -> None:
    manager = ears("manager", "hyps/workers/+/state")
    state = topic(Role.WORKER, "w1", "state")
    worker = Connection(
        read_join(hub / "w1.join"), "w1", received=lambda topic, payload, acknowledge: None, will=(state, b"gone")
    )
    worker.open()
    worker.publish(state, b"here")
    wait_for("w1's state", lambda: manager.heard == [(state, b"here")])
    worker._client._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    wait_for("w1's last will", lambda: (state, b"gone") in manager.heard)
    worker.close()
    manager.connection.publish(state, b"", retain=True)


def test_no_delay_and_no_larger_messages(ears: Callable[..., Ear], hub: Path) -> None:
    """Without TCP_NODELAY on both sides, each message takes 40 ms."""
    manager, worker = ears("manager"), ears("w1", "hyps/workers/w1/input")
    options = worker.connection._client.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[union-attr]
    assert options == 1
    for number in range(25):
        manager.connection.publish("hyps/workers/w1/input", bytes(30_000))
        worker.await_messages(number + 1)
    assert "set_tcp_nodelay true" in (hub / "mosquitto.conf").read_text().splitlines()
    assert manager.connection.largest_bytes == FRAME_LIMIT_BYTES + ENVELOPE_BYTES
    manager.connection.publish("hyps/workers/w1/input", bytes(FRAME_LIMIT_BYTES))
    wait_for("the largest", lambda: len(worker.heard) == 26)


def test_the_hub_waits_for_acknowledgements(ears: Callable[..., Ear], hub: Path) -> None:
    """The hub sends 20 messages before the first is acknowledged (Mosquitto 2.0.11 then sends all the others)."""
    manager = ears("manager")
    held: list[Callable[[], None]] = []
    slow = Connection(
        read_join(hub / "w1.join"),
        "w1",
        received=lambda topic, payload, acknowledge: held.append(acknowledge),
        connected=lambda: slow.subscribe(["hyps/workers/w1/input"]),
    )
    slow.open()

    def heard_one() -> bool:
        manager.connection.publish("hyps/workers/w1/input", b"x")  # lost until the subscription holds
        return bool(held)

    wait_for("its subscription", heard_one)
    for _ in range(50):
        manager.connection.publish("hyps/workers/w1/input", b"x")
    wait_for("20 messages", lambda: len(held) == 20)
    time.sleep(0.2)
    assert len(held) == 20
    for acknowledge in held[:5]:
        acknowledge()
    wait_for("the others", lambda: len(held) > 50)
    slow.close()


def test_only_the_owner_can_read_secrets_and_they_are_never_shown(hub: Path) -> None:
    assert hub.stat().st_mode & 0o077 == 0
    for name in ("authority.key", "hub.key", "manager.join", "passwords", "access"):
        assert (hub / name).stat().st_mode & 0o777 == 0o600, name
    join = read_join(hub / "w1.join")
    assert join.password is not None
    assert join.password not in repr(join)
    assert all(join.password not in path.read_text() for path in (hub / "passwords", hub / "mosquitto.conf"))
    assert "PRIVATE KEY" not in (join.authority or "")  # "key" alone may occur in base64


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["init-hub", "{hub}"], "exists: its credentials would be lost"),
        (["init-hub", "{tmp}/a b"], "takes no spaces in paths"),
        (["init-hub", "{tmp}/x", "--host", "a b"], "'a b' is not a name or an address of a host"),
        (["init-hub", "{tmp}/x", "--port", "0"], "must be a port, 1 to 65535"),
        (["init-hub", "{tmp}/no/folder"], "cannot write"),
        (["add-worker", "w1", "--hub-dir", "{tmp}"], "is not a hub's folder; make one with 'hyps-manager init-hub DIR'"),
        (["add-worker", "a/b", "--hub-dir", "{hub}"], "'a/b' cannot be a name"),
        (["add-worker", "+", "--hub-dir", "{hub}"], "cannot be a name"),
        (["add-worker", "manager", "--hub-dir", "{hub}"], "cannot be a name"),
        (["add-worker", "x\ntopic readwrite #", "--hub-dir", "{hub}"], "cannot be a name"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_user_can_mend(hub: Path, hyps_manager: Command, tmp_path: Path, arguments: list[str], reason: str) -> None:
    before = sorted(path.name for path in hub.iterdir())
    done = hyps_manager(*(each.format(hub=hub, tmp=tmp_path) for each in arguments))
    assert done.returncode == 2
    assert re.search(reason, done.stderr), done.stderr
    assert sorted(path.name for path in hub.iterdir()) == before
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://board", "mqtt://board:1883"),
        ("mqtts://board", "mqtts://board:8883"),
        ("mqtts://[::1]:7", "mqtts://[::1]:7"),
        ("mqtt://10.0.0.1:99/", "mqtt://10.0.0.1:99"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    assert str(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "board", "board:1883", "http://board", "mqtt://", "mqtt://a:x", "mqtt://a:99999", "mqtt://a/b", "mqtt://[x"]
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(HubError, match="is not an address of a hub; give mqtt://HOST:PORT"):
        parse_address(text)


def test_no_password_in_an_address() -> None:
    with pytest.raises(HubError, match="list of processes") as caught:
        parse_address("mqtt://w1:hunter2@board")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"hub": 3}', b'{"hub": "mqtt://a", "more": 1}', b"\xff", b"[" * 10_000])
def test_invalid_join_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w1.join"
    write_secret(path, content)
    with pytest.raises(HubError, match="is not a join file; make one"):
        read_join(path)


def test_join_files_round_trip(tmp_path: Path) -> None:
    join = Join(hub="mqtts://board:1", name="w1", password="p", authority="a")
    write_secret(tmp_path / "j", encode_join(join))
    assert read_join(tmp_path / "j") == join


def test_topics() -> None:
    assert topic(Role.WORKER, "w1", "input") == "hyps/workers/w1/input"
    assert parse_topic("hyps/workers/w1/input") == UserTopic(User(Role.WORKER, "w1"), "input")
    for text in ("", "hyps", "hyps/workers/w1", "hyps/others/w1/input", "x/workers/w1/input", "hyps/workers/+/input"):
        assert parse_topic(text) is None
