"""The fake agent over time: restarts with sessions, limits, keys and tokens, identities, encryption."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.local.agent.setup import Configuration, Registration
from smssh_plugin.local.service_error import ServiceError
from smssh_plugin.session.wire.frames import Message, MessageType
from tests.local.service_harness import Service, running
from tests.local.session_client import Client
from tests.session.conftest import agent, echo, new_agent, stack  # noqa: F401 - fixtures
from tests.session.support import Agent, EchoServer, Stack
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Make = Callable[..., Agent]
SSH = "AWS-StartSSHSession"


def begin(stack: Stack, target: str, port: int, document: str = SSH) -> Client:
    parameters = {"portNumber": [str(port)]}
    return Client(stack.call("StartSession", Target=target, DocumentName=document, Parameters=parameters))


def configure(made: Agent, **sections: dict[str, Any]) -> None:
    """Change an agent's configuration."""
    path = made.folder / "configuration" / "amazon-ssm-agent.json"
    body = json.loads(path.read_text())
    for name, more in sections.items():
        body[name] = {**body.get(name, {}), **more}
    path.write_text(json.dumps(body))


def workers(made: Agent) -> list[int]:
    """The pids that it keeps of its sessions."""
    return [
        json.loads(path.read_text())["pid"] for path in (made.folder / "state" / "sessions").glob("*.json")
    ]


# Sessions and restarts.


def test_a_session_outlives_a_killed_agent_and_its_end_is_told_by_the_next(
    agent: Agent, stack: Stack, echo: EchoServer
) -> None:
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    (pid,) = workers(agent)
    assert agent.process is not None
    agent.process.kill()
    agent.process.wait()
    client.send(b"orphan")
    client.wait_output(b"orphan")
    agent.start()
    agent.wait_connected()
    client.send(b"taken over")
    client.wait_output(b"taken over")
    client.flag(2)
    assert client.wait_closed() == ""
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    until(lambda: not list((agent.folder / "state" / "sessions").iterdir()))


def test_a_session_that_ended_without_an_agent_is_told_of_by_the_next(
    agent: Agent, stack: Stack, echo: EchoServer
) -> None:
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    client.send(b"x")
    client.wait_output(b"x")
    assert agent.stop() == 0
    (pid,) = workers(agent)
    for connection in echo.connections:
        connection.shutdown(socket.SHUT_RDWR)
    until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the session's process")
    assert client.closed is None
    agent.start()
    assert client.wait_closed() == ""
    assert [e.detail for e in stack.service.events if e.kind == "task-complete"] == ["Success: "]


def test_a_session_that_was_taken_over_is_terminated_like_any_other(
    agent: Agent, stack: Stack, echo: EchoServer
) -> None:
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    client.send(b"x")
    client.wait_output(b"x")
    assert agent.stop() == 0
    agent.start()
    agent.wait_connected()
    stack.call("TerminateSession", SessionId=client.id)
    until(lambda: not echo.open)


def test_a_session_whose_process_is_killed_fails(agent: Agent, stack: Stack, echo: EchoServer) -> None:
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    (pid,) = workers(agent)
    os.kill(pid, signal.SIGKILL)
    assert "document process failed unexpectedly" in client.wait_closed()
    client = begin(stack, agent.node, echo.port)  # and the agent goes on
    client.wait_complete()


def test_ctrl_c_on_the_agent_is_not_for_its_sessions(agent: Agent, stack: Stack, echo: EchoServer) -> None:
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    assert agent.process is not None
    os.killpg(agent.process.pid, signal.SIGINT)
    assert agent.process.wait(LIMIT) == 0
    client.send(b"still here")
    client.wait_output(b"still here")


def test_a_session_holds_nothing_of_the_agents(agent: Agent, stack: Stack, echo: EchoServer) -> None:
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    (pid,) = workers(agent)
    service = int(stack.url.rpartition(":")[2])
    assert connections_to(pid, service) == 1  # its data channel, and not the control channel too
    assert agent.process is not None
    assert connections_to(agent.process.pid, service) == 1


def connections_to(pid: int, port: int) -> int:
    """How many TCP connections to a port a process has open."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    with open(f"/proc/{pid}/net/tcp") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[9] in inodes for row in rows)


def test_a_completed_task_is_told_until_it_is_acknowledged(
    agent: Agent, stack: Stack, echo: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Message] = []
    receive = stack.service.channels._from_agent_control

    async def deaf(link: Any, target: str, data: bytes) -> None:
        message = Message.decode(data)
        if message.type == MessageType.AGENT_TASK_COMPLETE:
            heard.append(message)
            if len(heard) == 1:
                return
        await receive(link, target, data)

    monkeypatch.setattr(stack.service.channels, "_from_agent_control", deaf)
    client = begin(stack, agent.node, echo.port)
    client.wait_complete()
    client.flag(2)
    assert client.wait_closed() == ""
    assert len(heard) == 2
    assert heard[0] == heard[1]
    body = heard[0].json()
    assert body["Topic"] == "aws.ssm.mgs.interactive_shell"
    assert (body["TaskId"], body["FinalTaskStatus"], body["Output"]) == (client.id, "Success", "")
    assert body["InstanceId"] == agent.node


def test_the_control_channel_is_closed_with_a_reason_for_what_is_no_message(
    agent: Agent, stack: Stack
) -> None:
    link = stack.service.channels.control[agent.node]
    stack.do(link.forward(b"\x00" * 200))
    until(lambda: stack.events("control-open").count(agent.node) == 2)
    assert link.socket.close_code == 1007
    assert "header" in (agent.folder / "log").read_text()


# Limits.


def test_sessions_of_one_instant_need_a_place_in_the_buffer(
    new_agent: Make, stack: Stack, echo: EchoServer
) -> None:
    """With Amazon's default of one place, the second waits a second; see Mgs.SessionWorkerBufferLimit."""
    made = new_agent()
    made.register()
    made.start()
    made.wait_connected()
    assert made.process is not None
    os.kill(made.process.pid, signal.SIGSTOP)
    clients = [begin(stack, made.node, echo.port) for _ in range(2)]
    os.kill(made.process.pid, signal.SIGCONT)
    for client in clients:
        client.wait_complete()
    log = (made.folder / "log").read_text()
    assert log.count("ProcessorBufferFull (1)") == 1


def test_a_larger_buffer_has_room_for_all_of_them(new_agent: Make, stack: Stack, echo: EchoServer) -> None:
    made = new_agent()
    configure(made, Mgs={"SessionWorkerBufferLimit": 100})
    made.register()
    made.start()
    made.wait_connected()
    assert made.process is not None
    os.kill(made.process.pid, signal.SIGSTOP)
    clients = [begin(stack, made.node, echo.port) for _ in range(5)]
    os.kill(made.process.pid, signal.SIGCONT)
    for client in clients:
        client.wait_complete()
    assert "ProcessorBufferFull" not in (made.folder / "log").read_text()


def test_more_sessions_than_workers_wait_and_too_many_block_the_control_channel(
    new_agent: Make, stack: Stack, echo: EchoServer
) -> None:
    made = new_agent()
    configure(made, Mgs={"SessionWorkersLimit": 1})
    made.register()
    made.start()
    made.wait_connected()
    first, second = (begin(stack, made.node, echo.port) for _ in range(2))
    first.wait_complete()
    assert second.complete is None
    first.flag(2)
    second.wait_complete()  # its worker is free now
    begin(stack, made.node, echo.port)  # waits in the buffer
    begin(stack, made.node, echo.port)  # finds no place
    log = made.folder / "log"
    until(lambda: "blocking control channel" in log.read_text(), seconds=LIMIT)
    # From now on the agent acts on nothing, not even on the end of the session that is in the way.
    stack.call("TerminateSession", SessionId=second.id)
    assert second.wait_closed() == ""
    stack.do(stack.service.drop("control", made.node))
    until(lambda: stack.events("control-open").count(made.node) == 2)
    assert echo.open == 1
    assert len(workers(made)) == 1


# Keys and tokens.


def test_the_key_is_replaced_when_the_service_asks_for_it(new_agent: Make, stack: Stack) -> None:
    made = new_agent()
    node = made.register()
    before = Registration.load(made.folder / "state")
    stack.service.nodes.nodes[node].rotate = True
    public = stack.service.nodes.nodes[node].public_key
    made.start()
    made.wait_connected()
    after = Registration.load(made.folder / "state")
    assert before is not None
    assert after is not None
    assert after.private_key != before.private_key
    assert (after.node, after.fingerprint) == (before.node, before.fingerprint)
    assert stack.service.nodes.nodes[node].public_key != public
    assert stack.calls.count("UpdateManagedInstancePublicKey") == 1
    assert made.stop() == 0
    made.start()
    made.wait_connected()  # with the new key
    assert stack.calls.count("UpdateManagedInstancePublicKey") == 1


def test_an_old_key_is_replaced_if_the_configuration_says_so(new_agent: Make, stack: Stack) -> None:
    made = new_agent(KeyAutoRotateDays=3)
    made.register()
    path = made.folder / "state" / "Vault" / "Store" / "RegistrationKey"
    for age, rotations in ((2.9, 0), (3.1, 1)):
        body = json.loads(path.read_text())
        body["privateKeyCreatedDate"] = time.time() - age * 86400
        path.write_text(json.dumps(body))
        made.start()
        made.wait_connected()
        assert stack.calls.count("UpdateManagedInstancePublicKey") == rotations
        assert made.stop() == 0


def test_a_key_that_cannot_be_replaced_goes_on(new_agent: Make, stack: Stack) -> None:
    made = new_agent()
    node = made.register()
    stack.service.nodes.nodes[node].rotate = True
    stack.service.faults["UpdateManagedInstancePublicKey"] = ServiceError("InternalServerError", "no", 500)
    made.start()
    made.wait_connected()
    assert "Failed to rotate private key" in (made.folder / "log").read_text()


def test_credentials_are_fetched_again_before_they_are_over(
    new_agent: Make, stack: Stack, echo: EchoServer
) -> None:
    made = new_agent()
    made.register()
    stack.service.nodes.token_seconds = 2.0
    made.start()
    made.wait_connected()
    client = begin(stack, made.node, echo.port)
    client.wait_complete()
    node = stack.service.nodes.nodes[made.node]
    (first,) = list(node.access_keys)
    time.sleep(2.1)  # until they are over, which is what this is about
    assert not stack.service._may_act_for(first, made.node)
    # The session gets its own when it needs them.
    stack.do(stack.service.drop("agent", client.id))
    until(lambda: stack.events("agent-open").count(client.id) == 2)
    client.send(b"again")
    client.wait_output(b"again")


# Other identities.


def native(made: Agent, target: str) -> None:
    """The configuration that SageMaker's own agent seems to have."""
    identity = {
        "ConsumptionOrder": ["CustomIdentity"],
        "CustomIdentities": [{"InstanceID": target, "Region": "us-east-1", "CredentialsProvider": "DEFAULT"}],
    }
    configure(made, Agent={"ContainerMode": True}, Identity=identity)


def test_a_native_target_needs_no_registration_and_no_pings(
    new_agent: Make, stack: Stack, echo: EchoServer
) -> None:
    target = "sagemaker-training-job:job-1_algo-1"
    made = new_agent()
    native(made, target)
    made.node = target
    made.start(AWS_ACCESS_KEY_ID="ASIAJOB", AWS_SECRET_ACCESS_KEY="secret", AWS_SESSION_TOKEN="token")
    made.wait_connected()
    client = begin(stack, target, echo.port)
    client.wait_complete()
    client.send(b"native")
    client.wait_output(b"native")
    # In a container there is a shell too, and commands have none around them.
    shell = Client(stack.call("StartSession", Target=target))
    shell.send(b"echo in-the-$((1 + 1))nd-shell\n")
    shell.wait_output(b"in-the-2nd-shell")
    direct = Client(
        stack.call(
            "StartSession",
            Target=target,
            DocumentName="AWS-StartInteractiveCommand",
            Parameters={"command": ["echo $HOME ; exit"]},
        )
    )
    assert direct.wait_closed() == ""
    assert direct.output == b"$HOME ; exit\r\n"
    assert set(stack.calls) <= {"StartSession", "GetConnectionStatus"}


def test_without_credentials_a_native_target_tries_again_later(new_agent: Make) -> None:
    made = new_agent()
    native(made, "sagemaker-training-job:job-1_algo-1")
    made.start(AWS_EC2_METADATA_DISABLED="true")
    log = made.folder / "log"
    until(lambda: "no AWS credentials" in log.read_text())
    assert made.stop() == 0


@pytest.mark.parametrize(
    ("identity", "custom"),
    [
        ({}, False),
        ({"ConsumptionOrder": ["OnPrem", "CustomIdentity"]}, False),
        ({"ConsumptionOrder": ["CustomIdentity"]}, False),
        ({"ConsumptionOrder": ["EC2", "CustomIdentity"]}, True),
    ],
)
def test_the_first_identity_that_there_is_counts(
    tmp_path: Path, identity: dict[str, Any], custom: bool
) -> None:
    if custom:
        identity = {**identity, "CustomIdentities": [{"InstanceID": "i", "Region": "r"}]}
    (tmp_path / "configuration").mkdir()
    body = {"Ssm": {"Endpoint": "http://x"}, "Mgs": {"Endpoint": "http://x"}, "Identity": identity}
    (tmp_path / "configuration" / "amazon-ssm-agent.json").write_text(json.dumps(body))
    assert (Configuration.load(tmp_path).custom is not None) is custom


@pytest.mark.parametrize(
    ("mgs", "limits"),
    [
        ({}, (1000, 1)),
        ({"SessionWorkersLimit": 5, "SessionWorkerBufferLimit": 7}, (5, 7)),
        ({"SessionWorkersLimit": 0, "SessionWorkerBufferLimit": "many"}, (1000, 1)),
    ],
)
def test_limits_out_of_range_are_amazons_defaults(
    tmp_path: Path, mgs: dict[str, Any], limits: tuple[int, int]
) -> None:
    (tmp_path / "configuration").mkdir()
    body = {"Ssm": {"Endpoint": "http://x"}, "Mgs": {"Endpoint": "http://x", **mgs}}
    (tmp_path / "configuration" / "amazon-ssm-agent.json").write_text(json.dumps(body))
    loaded = Configuration.load(tmp_path)
    assert (loaded.workers, loaded.worker_buffer) == limits


# Encryption, with KMS by moto.


@pytest.fixture(scope="module")
def kms() -> Iterator[Service]:
    with running() as service:
        yield service


class Encrypted:
    """A node of a service with KMS, whose shells are encrypted."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.kms = service.client("kms")
        self.ssm = service.client("ssm")
        self.key = self.kms.create_key()["KeyMetadata"]["Arn"]
        self.inputs({"kmsKeyId": self.key})
        # The first is made of much that has to be loaded, and an agent waits no longer than 15 s for a client's.
        self.kms.generate_data_key(KeyId=self.key, NumberOfBytes=64)
        self.agent = Agent(_Gateway(service), folder)  # type: ignore[arg-type]
        configure(self.agent, Kms={"Endpoint": service.endpoint})
        self.agent.register()
        self.agent.start()
        self.agent.wait_connected()

    def inputs(self, inputs: dict[str, str]) -> None:
        content = {"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs}
        self.ssm.update_document(
            Name="SSM-SessionManagerRunShell", Content=json.dumps(content), DocumentVersion="$LATEST"
        )

    def data_key(self, session: str, asked: dict[str, str]) -> tuple[bytes, bytes]:
        assert asked["KMSKeyId"] == self.key
        assert asked["Challenge"]
        context = {"aws:ssm:SessionId": session, "aws:ssm:TargetId": self.agent.node}
        made = self.kms.generate_data_key(KeyId=self.key, NumberOfBytes=64, EncryptionContext=context)
        return made["Plaintext"], made["CiphertextBlob"]

    def open(self, **client: Any) -> Client:
        return Client(self.ssm.start_session(Target=self.agent.node), **client)


class _Gateway:
    """As much of a `Stack` as an `Agent` wants, in front of the whole gateway: it verifies signatures."""

    def __init__(self, service: Service) -> None:
        self.url = service.endpoint
        self._service = service

    def call(self, operation: str, access_key: str | None = "AKIATEST", **body: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._service.do(self._service.sessions.handle(operation, body, access_key))
        return found


@pytest.fixture
def encrypted(kms: Service, tmp_path: Path) -> Iterator[Encrypted]:
    made = Encrypted(kms, tmp_path / "agent")
    yield made
    made.agent.kill()


def test_a_shell_is_encrypted_with_the_accounts_key(encrypted: Encrypted) -> None:
    client = encrypted.open(data_key=encrypted.data_key)
    assert client.wait_complete()["CustomerMessage"] == "This session is encrypted using AWS KMS."
    assert client.request is not None
    kinds = [action["ActionType"] for action in client.request["RequestedClientActions"]]
    assert kinds == ["SessionType", "KMSEncryption"]
    client.send(b"echo sec$((40 + 2))ret\n")
    client.wait_output(b"sec42ret")
    assert not any(b"sec42ret" in message.payload for message in client.messages)


def test_a_client_that_does_not_encrypt_gets_no_shell(encrypted: Encrypted) -> None:
    client = encrypted.open(status=3)
    assert "SessionType failed on client with status 3" in client.wait_closed()
    client = encrypted.open()  # says that it does, and brings no key
    assert "no data key" in client.wait_closed()


def test_a_key_of_another_session_is_refused(encrypted: Encrypted) -> None:
    client = encrypted.open(data_key=lambda _session, asked: encrypted.data_key("another", asked))
    assert "Unable to retrieve data key" in client.wait_closed()


def test_a_port_session_is_never_encrypted(encrypted: Encrypted, echo: EchoServer) -> None:
    opening = encrypted.ssm.start_session(
        Target=encrypted.agent.node, DocumentName=SSH, Parameters={"portNumber": [str(echo.port)]}
    )
    client = Client(opening)
    assert client.wait_complete()["CustomerMessage"] == ""
    client.send(b"plain")
    client.wait_output(b"plain")


def test_without_an_endpoint_of_kms_nobody_is_asked(encrypted: Encrypted) -> None:
    assert encrypted.agent.stop() == 0
    configure(encrypted.agent, Kms={"Endpoint": ""})
    encrypted.agent.start()
    encrypted.agent.wait_connected()
    client = encrypted.open(data_key=encrypted.data_key)
    assert "names no Kms.Endpoint" in client.wait_closed()
