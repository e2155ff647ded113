"""The session service's operations and channels, by real calls and real websockets."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import time
import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import botocore.session
import pytest
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from multidict import CIMultiDict
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from smssh_plugin.local.agent.identity import _private_key, _RsaAuth
from smssh_plugin.local.service_error import ServiceError
from smssh_plugin.local.sessions.node_signatures import SignedRequest
from smssh_plugin.local.sessions.nodes import Nodes
from smssh_plugin.local.sessions.session_service import SessionService
from smssh_plugin.local.signatures import Request
from smssh_plugin.session.wire.frames import Message, MessageType
from tests.session.conftest import stack  # noqa: F401 - a fixture
from tests.session.support import KEYS, Stack
from tests.waiting import LIMIT, until


@pytest.fixture
def ssm(stack: Stack) -> Any:
    """A botocore client: what the service answers has to be what AWS's own model reads."""
    return botocore.session.get_session().create_client(
        "ssm",
        region_name="us-east-1",
        endpoint_url=stack.url,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/x/ssmmessages/z, Signature=s"}
"""Signed, as far as the service without its gateway looks."""


class FakeNode:
    """A managed node of which the test plays the agent."""

    def __init__(self, stack: Stack, **activation: Any) -> None:
        self.stack = stack
        made = stack.call("CreateActivation", IamRole="SSM", **activation)
        self.fingerprint = str(uuid.uuid4())
        self.id = stack.call(
            "RegisterManagedInstance",
            None,
            ActivationId=made["ActivationId"],
            ActivationCode=made["ActivationCode"],
            PublicKey="key",
            PublicKeyType="Rsa",
            Fingerprint=self.fingerprint,
        )["InstanceId"]
        self.token = stack.call("RequestManagedInstanceRoleToken", self.id, Fingerprint=self.fingerprint)
        self.key = self.token["AccessKeyId"]

    def ping(self) -> None:
        self.stack.call("UpdateInstanceInformation", self.key, InstanceId=self.id, AgentVersion="3.3.987.0")

    def header(self, key: str | None = None) -> dict[str, str]:
        return {"Authorization": f"AWS4-HMAC-SHA256 Credential={key or self.key}/20260101/x/y/z, Signature=s"}

    def post(self, path: str, key: str | None = None) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(urlsplit(self.stack.url).netloc, timeout=LIMIT)
        connection.request("POST", f"/v1/{path}", json.dumps({"RequestId": "r"}), self.header(key))
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"] or "", answer.read().decode()

    def socket(self, path: str, token: str, key: str | None = None) -> ClientConnection:
        url = self.stack.url.replace("http", "ws") + f"/v1/{path}?role=subscribe"
        made = opened(url, self.header(key))
        made.send(json.dumps({"MessageSchemaVersion": "1.0", "TokenValue": token}))
        return made

    def open(self, path: str) -> ClientConnection:
        token = ET.fromstring(self.post(path)[2]).findtext("TokenValue")
        assert token
        return self.socket(path, token)

    def connected(self) -> ClientConnection:
        control = self.open(f"control-channel/{self.id}")
        until(lambda: self.stack.call("GetConnectionStatus", Target=self.id)["Status"] == "connected")
        return control


def opened(url: str, headers: dict[str, str] | None = None) -> ClientConnection:
    return connect(url, additional_headers=headers, compression=None).__enter__()


def client_socket(opening: dict[str, Any], token: str | None = None) -> ClientConnection:
    made = opened(opening["StreamUrl"], SIGNED)
    made.send(json.dumps({"TokenValue": token or opening["TokenValue"], "ClientId": "c"}))
    return made


def received(socket: ClientConnection) -> Message:
    return Message.decode(socket.recv(timeout=LIMIT))  # type: ignore[arg-type]


# Activations and nodes.


def test_an_activation_has_the_agents_lengths_and_shows_no_code_again(ssm: Any) -> None:
    made = ssm.create_activation(
        IamRole="service-role/SSM", Description="d", Tags=[{"Key": "a", "Value": "b"}]
    )
    assert len(made["ActivationId"]) == 36
    assert len(made["ActivationCode"]) == 20
    (shown,) = ssm.describe_activations(
        Filters=[{"FilterKey": "ActivationIds", "FilterValues": [made["ActivationId"]]}]
    )["ActivationList"]
    assert shown["RegistrationLimit"] == 1
    assert shown["RegistrationsCount"] == 0
    assert not shown["Expired"]
    assert shown["Tags"] == [{"Key": "a", "Value": "b"}]
    assert made["ActivationCode"] not in str(shown)
    ssm.delete_activation(ActivationId=made["ActivationId"])
    with pytest.raises(ClientError) as caught:
        ssm.delete_activation(ActivationId=made["ActivationId"])
    assert code_of(caught) == "InvalidActivation"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"RegistrationLimit": 1001}, "ValidationException"),
        ({"ExpirationDate": time.time() - 1}, "InvalidParameters"),
        ({"ExpirationDate": time.time() + 31 * 86400}, "InvalidParameters"),
        ({"Tags": [{"Key": "k", "Value": "x" * 257}]}, "ValidationException"),
        ({"Tags": [{"Key": "k", "Value": "a,b"}]}, "ValidationException"),
        ({"Tags": [{"Key": "aws:k", "Value": "v"}]}, "ValidationException"),
        ({"Tags": [{"Key": f"k{n}", "Value": "v"} for n in range(51)]}, "TooManyTagsError"),
    ],
)
def test_an_activation_that_aws_would_refuse_is_refused(
    stack: Stack, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        stack.call("CreateActivation", IamRole="r", **arguments)
    assert caught.value.code == code


def test_an_activation_registers_as_many_nodes_as_its_limit_until_it_expires(stack: Stack) -> None:
    made = stack.call(
        "CreateActivation", IamRole="r", RegistrationLimit=2, Tags=[{"Key": "SMSSHJob", "Value": "j"}]
    )

    def register(code: str = made["ActivationCode"]) -> str:
        return str(
            stack.call(
                "RegisterManagedInstance",
                None,
                ActivationId=made["ActivationId"],
                ActivationCode=code,
                PublicKey="k",
                Fingerprint="f",
            )["InstanceId"]
        )

    first, second = register(), register()
    assert first != second
    assert len(first) == 20
    for code in (made["ActivationCode"], "x" * 20):
        with pytest.raises(ServiceError) as caught:
            register(code)
        assert caught.value.code == "InvalidActivation"
    assert stack.call("ListTagsForResource", ResourceType="ManagedInstance", ResourceId=first) == {
        "TagList": [{"Key": "SMSSHJob", "Value": "j"}]
    }
    activation = stack.service.nodes.activations[made["ActivationId"]]
    activation.limit, activation.expires = 10, time.time() - 1
    with pytest.raises(ServiceError, match="InvalidActivation"):
        register()


def test_the_role_token_is_for_the_registered_machine(stack: Stack) -> None:
    node = FakeNode(stack)
    assert node.token["UpdateKeyPair"] is False  # the agent dereferences it unseen
    assert node.token["AccessKeyId"].startswith("ASIA")
    assert node.token["TokenExpirationDate"] > time.time()
    with pytest.raises(ServiceError, match="MachineFingerprintDoesNotMatch"):
        stack.call("RequestManagedInstanceRoleToken", node.id, Fingerprint="another")
    with pytest.raises(ServiceError, match="AccessDeniedException"):
        stack.call("RequestManagedInstanceRoleToken", "mi-0123", Fingerprint=node.fingerprint)


def test_a_node_cannot_ping_for_another(stack: Stack) -> None:
    first, second = FakeNode(stack), FakeNode(stack)
    with pytest.raises(ServiceError, match="AccessDeniedException"):
        stack.call("UpdateInstanceInformation", first.key, InstanceId=second.id)


def test_nodes_are_found_by_tags_and_status_with_pages_of_ten(stack: Stack, ssm: Any) -> None:
    nodes = [FakeNode(stack, Tags=[{"Key": "SMSSHJob", "Value": f"job-{n}"}]) for n in range(12)]
    for node in nodes[:-1]:
        node.ping()

    def found(**arguments: Any) -> list[str]:
        return [
            one["InstanceId"]
            for one in ssm.describe_instance_information(**arguments)["InstanceInformationList"]
        ]

    assert found(Filters=[{"Key": "tag:SMSSHJob", "Values": ["job-3"]}]) == [nodes[3].id]
    assert found(Filters=[{"Key": "tag:SMSSHJob", "Values": ["job-3", "job-5"]}]) == [
        nodes[3].id,
        nodes[5].id,
    ]
    assert nodes[-1].id in found(Filters=[{"Key": "PingStatus", "Values": ["Inactive"]}])
    with pytest.raises(ClientError, match="Tag filters can't be combined with other filter types"):
        found(
            Filters=[
                {"Key": "tag-key", "Values": ["SMSSHJob"]},
                {"Key": "PingStatus", "Values": ["Inactive"]},
            ]
        )
    assert found(InstanceInformationFilterList=[{"key": "InstanceIds", "valueSet": [nodes[0].id]}]) == [
        nodes[0].id
    ]
    assert len(found()) == 10
    pages = ssm.get_paginator("describe_instance_information").paginate()
    assert len([one for page in pages for one in page["InstanceInformationList"]]) == 12
    with pytest.raises(ClientError) as caught:
        found(Filters=[{"Key": "Nonsense", "Values": ["x"]}])
    assert code_of(caught) == "InvalidFilterKey"
    with pytest.raises(ServiceError, match="ValidationException"):
        stack.call("DescribeInstanceInformation", MaxResults=4)


def test_a_node_stays_online_for_minutes_after_its_last_ping(stack: Stack) -> None:
    node = FakeNode(stack)
    node.ping()
    kept = stack.service.nodes.nodes[node.id]
    assert kept.ping_status(kept.pinged + 329) == "Online"
    assert kept.ping_status(kept.pinged + 331) == "ConnectionLost"


def test_tags_of_a_node_are_added_replaced_and_removed(stack: Stack, ssm: Any) -> None:
    node = FakeNode(stack)
    where = {"ResourceType": "ManagedInstance", "ResourceId": node.id}
    ssm.add_tags_to_resource(
        **where, Tags=[{"Key": "SMSSHState", "Value": "ready"}, {"Key": "a", "Value": ""}]
    )
    ssm.add_tags_to_resource(**where, Tags=[{"Key": "SMSSHState", "Value": "held"}])
    ssm.remove_tags_from_resource(**where, TagKeys=["a", "never there"])
    assert ssm.list_tags_for_resource(**where)["TagList"] == [{"Key": "SMSSHState", "Value": "held"}]
    with pytest.raises(ClientError) as caught:
        ssm.list_tags_for_resource(ResourceType="ManagedInstance", ResourceId="mi-00000000000000000")
    assert code_of(caught) == "InvalidResourceId"
    with pytest.raises(ClientError) as caught:
        ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="p")
    assert code_of(caught) == "InvalidResourceType"


def test_ten_thousand_nodes_cost_a_look_up_what_one_costs() -> None:
    """By what is looked at, and not by time."""
    nodes = Nodes()
    made = nodes.create_activation({"IamRole": "r", "RegistrationLimit": 1000})
    activation = nodes.activations[made["ActivationId"]]
    ids: list[str] = []

    def register(number: int) -> None:
        activation.registrations = 0
        activation.tags = {"SMSSH": "1", "SMSSHJob": f"job-{number}"}
        body = {**made, "PublicKey": "k", "Fingerprint": f"f-{number}"}
        ids.append(nodes.register(body)["InstanceId"])

    def cost(**body: Any) -> int:
        before = nodes.examined
        nodes.describe(body)
        return nodes.examined - before

    def costs(number: int) -> list[int]:
        online = {"Key": "PingStatus", "Values": ["Online"]}
        return [
            cost(Filters=[{"Key": "tag:SMSSHJob", "Values": [f"job-{number}"]}]),
            cost(Filters=[online, {"Key": "InstanceIds", "Values": [ids[number]]}]),
            cost(InstanceInformationFilterList=[{"key": "InstanceIds", "valueSet": [ids[number]]}]),
            cost(Filters=[{"Key": "tag:SMSSHJob", "Values": ["none"]}]),
        ]

    register(0)
    alone = costs(0)
    for number in range(1, 10_000):
        register(number)
    assert alone == [1, 1, 1, 0]
    for number in (0, 4711, 9_999):
        assert costs(number) == alone
    # A page costs a page, wherever it is.
    for token in ("0", "5000"):
        assert cost(MaxResults=50, NextToken=token) == 51
    everything: list[str] = []
    page: dict[str, Any] = {}
    while not everything or "NextToken" in page:
        page = nodes.describe({"MaxResults": 50, **({"NextToken": page["NextToken"]} if page else {})})
        everything += [one["InstanceId"] for one in page["InstanceInformationList"]]
    assert everything == ids
    token = nodes.role_token({"Fingerprint": "f-77"}, ids[77])
    assert nodes.of_access_key(token["AccessKeyId"]).id == ids[77]
    nodes.deregister(ids[77])
    assert costs(78) == alone
    assert not nodes.describe({"Filters": [{"Key": "tag:SMSSHJob", "Values": ["job-77"]}]})[
        "InstanceInformationList"
    ]


def test_a_changed_tag_is_found_under_its_new_value_only(stack: Stack, ssm: Any) -> None:
    node = FakeNode(stack, Tags=[{"Key": "SMSSHState", "Value": "ready"}])
    where = {"ResourceType": "ManagedInstance", "ResourceId": node.id}

    def found(key: str, *values: str) -> list[str]:
        filters = [{"Key": key, "Values": list(values)}]
        answer = ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
        return [one["InstanceId"] for one in answer]

    ssm.add_tags_to_resource(**where, Tags=[{"Key": "SMSSHState", "Value": "held"}])
    assert found("tag:SMSSHState", "ready") == []
    assert found("tag:SMSSHState", "held", "ready") == [node.id]
    assert found("tag-key", "SMSSHState") == [node.id]
    ssm.remove_tags_from_resource(**where, TagKeys=["SMSSHState"])
    assert found("tag:SMSSHState", "held") == found("tag-key", "SMSSHState") == []


def test_credentials_of_a_node_are_over_some_day(stack: Stack) -> None:
    stack.service.nodes.token_seconds = 0.01
    node = FakeNode(stack)
    time.sleep(0.02)  # which is what this is about
    with pytest.raises(ServiceError, match="ExpiredTokenException"):
        node.ping()
    assert node.post(f"control-channel/{node.id}")[0] == 403
    stack.service.nodes.token_seconds = 3600.0
    token = stack.call("RequestManagedInstanceRoleToken", node.id, Fingerprint=node.fingerprint)
    node.key = token["AccessKeyId"]
    node.ping()
    assert len(stack.service.nodes.nodes[node.id].access_keys) == 1  # the one that was over is forgotten


def signed(key: Any, node: str, body: dict[str, Any]) -> SignedRequest:
    """A request as an agent signs it."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    auth = _RsaAuth(_private_key(private.decode()), node, "us-east-1")
    headers = {"X-Amz-Target": "AmazonSSM.RequestManagedInstanceRoleToken"}
    request = AWSRequest("POST", "http://127.0.0.1:1/", headers=headers, data=json.dumps(body))
    auth.add_auth(request)
    lowered = CIMultiDict(request.headers.items())
    lowered.setdefault("Host", "127.0.0.1:1")
    return SignedRequest(Request("POST", "/", lowered), json.dumps(body).encode())


def test_a_node_proves_itself_with_its_key(stack: Stack) -> None:
    key, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    node = FakeNode(stack)
    stack.service.nodes.nodes[node.id].public_key = base64.b64encode(public).decode()
    body = {"Fingerprint": node.fingerprint}

    def ask(request: SignedRequest) -> dict[str, Any]:
        return stack.do(stack.service.handle("RequestManagedInstanceRoleToken", body, node.id, request))

    good = signed(key, node.id, body)

    def with_headers(headers: Any) -> SignedRequest:
        return good._replace(request=replace(good.request, headers=CIMultiDict(headers)))

    assert ask(good)["AccessKeyId"]
    for wrong in (
        signed(other, node.id, body),
        good._replace(body=b"{}"),
        with_headers({**good.request.headers, "X-Amz-Date": "20200101T000000Z"}),
        with_headers({}),
        with_headers({"Authorization": node.header()["Authorization"]}),
    ):
        with pytest.raises(ServiceError, match="signature"):
            ask(wrong)
    stack.service.nodes.nodes[node.id].public_key = "no key"
    with pytest.raises(ServiceError, match="signature"):
        ask(good)


def test_an_operation_that_is_not_served_is_named(stack: Stack) -> None:
    with pytest.raises(ServiceError, match="UnknownOperationException: PutInventory"):
        stack.call("PutInventory")
    assert "PutInventory" not in SessionService().operations


# Control channels.


def test_a_control_channel_is_created_with_201_and_xml_for_the_nodes_own_key(stack: Stack) -> None:
    node, other = FakeNode(stack), FakeNode(stack)
    status, kind, body = node.post(f"control-channel/{node.id}")
    assert status == 201
    assert "xml" in kind
    tree = ET.fromstring(body)
    assert tree.findtext("MessageSchemaVersion") == "1.0"
    assert tree.findtext("TokenValue")
    status, _, body = node.post(f"control-channel/{node.id}", key=other.key)
    assert status == 403
    assert "<AccessDeniedException>" in body  # makes a real agent fall back to ec2messages
    assert node.post("control-channel/mi-00000000000000000")[0] == 403
    # Native remote debugging: no registration, the job's own credentials.
    assert node.post("control-channel/sagemaker-training-job:j_algo-1", key="ASIAJOB")[0] == 201


def test_a_wrong_token_opens_no_control_channel(stack: Stack) -> None:
    node = FakeNode(stack)
    path = f"control-channel/{node.id}"
    token = ET.fromstring(node.post(path)[2]).findtext("TokenValue")
    assert token
    with pytest.raises(ConnectionClosed) as caught:
        node.socket(path, "wrong").recv(timeout=LIMIT)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008
    node.socket(path, token)
    until(lambda: node.stack.call("GetConnectionStatus", Target=node.id)["Status"] == "connected")
    with pytest.raises(ConnectionClosed):  # a token is good for one use
        node.socket(path, token).recv(timeout=LIMIT)
    assert stack.events("refused") == [node.id, node.id]


def test_a_first_message_that_is_no_json_is_refused(stack: Stack) -> None:
    node = FakeNode(stack)
    url = stack.url.replace("http", "ws") + f"/v1/control-channel/{node.id}"
    for first in ("nonsense", "[]", b"\0" * 200):
        socket = opened(url, node.header())
        socket.send(first)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=LIMIT)


def test_the_newest_control_channel_of_a_node_counts(stack: Stack) -> None:
    node = FakeNode(stack)
    first = node.connected()
    second = node.open(f"control-channel/{node.id}")
    with pytest.raises(ConnectionClosed):
        first.recv(timeout=LIMIT)
    stack.call("StartSession", Target=node.id, DocumentName="AWS-StartSSHSession")
    assert received(second).type == MessageType.INTERACTIVE_SHELL


# Sessions.


def test_a_session_needs_a_connected_target_a_known_document_and_good_parameters(
    stack: Stack,
    ssm: Any,
) -> None:
    node = FakeNode(stack)
    node.ping()

    def start(**arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = ssm.start_session(
            Target=node.id, **{"DocumentName": "AWS-StartSSHSession", **arguments}
        )
        return answer

    with pytest.raises(ClientError) as caught:
        start()  # Online does not mean connected
    assert code_of(caught) == "TargetNotConnected"
    control = node.connected()
    for arguments, code in (
        ({"DocumentName": "Nonsense"}, "InvalidDocument"),
        ({"Parameters": {"portNumber": ["0"]}}, "InvalidParameters"),
        ({"Parameters": {"portNumber": ["65536"]}}, "InvalidParameters"),
        ({"Parameters": {"portNumber": ["22", "23"]}}, "InvalidParameters"),
        ({"Parameters": {"host": ["10.0.0.1"]}}, "InvalidParameters"),
    ):
        with pytest.raises(ClientError) as caught:
            start(**arguments)
        assert code_of(caught) == code
    opening = start(Parameters={"portNumber": ["2222"]}, Reason="why")
    assert opening["StreamUrl"].startswith("ws://127.0.0.1:")
    task = received(control)
    body = task.json()
    assert task.type == MessageType.INTERACTIVE_SHELL
    assert (body["TaskId"], body["Topic"], body["SchemaVersion"]) == (
        opening["SessionId"],
        "aws.ssm.mgs.interactive_shell",
        1,
    )
    content = json.loads(body["Content"])
    # A list here is what the real agent cannot unmarshal.
    assert content["Parameters"] == {"portNumber": "2222"}
    assert content["DocumentContent"]["sessionType"] == "Port"
    assert content["DocumentContent"]["properties"] == {"portNumber": "{{ portNumber }}"}
    (shown,) = ssm.describe_sessions(State="Active")["Sessions"]
    assert (shown["SessionId"], shown["Target"], shown["Reason"]) == (opening["SessionId"], node.id, "why")
    ssm.terminate_session(SessionId=opening["SessionId"])
    assert ssm.describe_sessions(State="Active")["Sessions"] == []
    assert [one["Status"] for one in ssm.describe_sessions(State="History")["Sessions"]] == ["Terminated"]


class Pair:
    """A session with both ends open, played by the test."""

    def __init__(self, stack: Stack) -> None:
        self.node = FakeNode(stack)
        self.control = self.node.connected()
        self.opening = stack.call("StartSession", Target=self.node.id, DocumentName="AWS-StartSSHSession")
        self.id = self.opening["SessionId"]
        assert received(self.control).type == MessageType.INTERACTIVE_SHELL
        self.client = client_socket(self.opening)
        self.agent = self.node.open(f"data-channel/{self.id}")
        self.session = stack.service.sessions[self.id]
        until(lambda: self.session.client and self.session.agent)


def until_closed(socket: ClientConnection) -> Any:
    """The close frame that comes in the end."""
    while True:
        try:
            socket.recv(timeout=LIMIT)
        except ConnectionClosed as closed:  # noqa: PERF203 - once
            return closed.rcvd


def test_frames_go_unchanged_to_the_other_side(stack: Stack) -> None:
    pair = Pair(stack)
    for socket, other, kind in (
        (pair.client, pair.agent, MessageType.INPUT),
        (pair.agent, pair.client, MessageType.OUTPUT),
        (pair.client, pair.agent, MessageType.ACKNOWLEDGE),
    ):
        frame = Message.new(kind, b"x" * 1024, payload_type=1).encode()
        socket.send(frame)
        assert other.recv(timeout=LIMIT) == frame


def test_what_is_not_the_others_business_does_not_reach_it(stack: Stack) -> None:
    pair = Pair(stack)
    pair.agent.send(Message.of(MessageType.AGENT_SESSION_STATE, {}).encode())
    pair.client.send(Message.new(MessageType.OUTPUT, b"the wrong way").encode())
    pair.client.send(Message.of(MessageType.CHANNEL_CLOSED, {}).encode())
    frame = Message.new(MessageType.INPUT, b"x").encode()
    pair.client.send(frame)
    assert pair.agent.recv(timeout=LIMIT) == frame
    frame = Message.new(MessageType.OUTPUT, b"x").encode()
    pair.agent.send(frame)
    assert pair.client.recv(timeout=LIMIT) == frame
    assert stack.events("malformed") == [pair.id] * 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda frame: b"short", "at least 120 bytes"),
        (lambda frame: b"\0" * 500, "header's length"),
        (lambda frame: b"\xff\xff\xff\xff" + frame[4:], "header's length"),
        (lambda frame: frame + b"x", "payload were announced"),
        (lambda frame: frame[:-1], "payload were announced"),
        (lambda frame: frame[:4] + b"\xff" * 32 + frame[36:], "not ASCII"),
        (lambda frame: frame[:4] + b" " * 32 + frame[36:], "not ASCII"),
        (lambda frame: "text", "of text"),
    ],
)
def test_what_is_no_message_closes_the_channel_with_the_reason(
    stack: Stack, damage: Any, reason: str
) -> None:
    pair = Pair(stack)
    whole = Message.new(MessageType.INPUT, b"payload").encode()
    for socket, subject in ((pair.client, pair.id), (pair.agent, pair.id), (pair.control, pair.node.id)):
        socket.send(damage(whole))
        closed = until_closed(socket)
        assert closed.code == 1007
        assert reason in closed.reason
        assert subject in stack.events("malformed")
    assert pair.session.ended is None  # a message may have been damaged on its way


def test_one_who_does_not_read_is_cut_off_and_holds_up_nobody(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smssh_plugin.local.sessions.channel_end._SEND_SECONDS", 0.2)
    pair, other = Pair(stack), Pair(stack)
    deaf = pair.session.client
    assert deaf is not None
    frame = Message.new(MessageType.OUTPUT, b"x" * 1_000_000).encode()

    async def fill() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            for _ in range(200):
                await asyncio.wait_for(deaf.forward(frame), 0.2)
            raise AssertionError("it reads")

    stack.do(fill())
    stack.call("TerminateSession", SessionId=pair.id)
    stack.call("TerminateSession", SessionId=other.id)
    assert received(other.client).type == MessageType.CHANNEL_CLOSED


def test_the_history_and_the_tokens_are_bounded(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smssh_plugin.local.sessions.session_service._HISTORY_MAX", 5)
    monkeypatch.setattr("smssh_plugin.local.sessions.channels._TOKENS_MAX", 5)
    pair = Pair(stack)
    for _ in range(12):
        made = stack.call("StartSession", Target=pair.node.id, DocumentName="AWS-StartSSHSession")
        stack.call("TerminateSession", SessionId=made["SessionId"])
        pair.node.post(f"data-channel/{pair.id}")
    assert len(stack.service.sessions) <= 7
    assert pair.id in stack.service.sessions
    assert len(stack.service.channels._tokens) <= 5


def test_an_agent_without_a_control_channel_is_told_on_its_data_channel(stack: Stack) -> None:
    pair = Pair(stack)
    pair.control.close()
    until(lambda: pair.node.id not in stack.service.channels.control)
    stack.call("TerminateSession", SessionId=pair.id)
    assert received(pair.agent).type == MessageType.CHANNEL_CLOSED


def test_sessions_are_described_by_their_time_and_owner(stack: Stack, ssm: Any) -> None:
    pair = Pair(stack)

    def found(state: str = "Active", **filters: str) -> list[str]:
        chosen = [{"key": key, "value": value} for key, value in filters.items()]
        return [one["SessionId"] for one in ssm.describe_sessions(State=state, Filters=chosen)["Sessions"]]

    assert found(InvokedAfter="2020-01-01T00:00:00Z") == [pair.id]
    assert found(InvokedBefore="2020-01-01T00:00:00Z") == []
    assert found(Target=pair.node.id, Status="Connected") == [pair.id]
    assert found("History", SessionId=pair.id) == []
    with pytest.raises(ClientError) as caught:
        found(InvokedAfter="yesterday")
    assert code_of(caught) == "ValidationException"


def test_tokens_of_a_data_channel_are_checked_on_both_sides(stack: Stack) -> None:
    pair = Pair(stack)
    other = Pair(stack)
    for socket in (
        client_socket(pair.opening, "wrong"),
        client_socket(pair.opening, other.opening["TokenValue"]),
        pair.node.socket(f"data-channel/{pair.id}", "wrong"),
    ):
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=LIMIT)
    assert other.node.post(f"data-channel/{pair.id}")[0] == 403
    assert pair.node.post("data-channel/unknown")[0] == 403
    with pytest.raises(InvalidStatus):
        opened(stack.url.replace("http", "ws") + "/v1/data-channel/unknown")


def test_a_completed_task_is_acknowledged_and_closes_the_clients_channel(stack: Stack) -> None:
    pair = Pair(stack)
    complete = Message.of(
        MessageType.AGENT_TASK_COMPLETE,
        {"TaskId": pair.id, "Topic": "t", "FinalTaskStatus": "Failed", "Output": "no such port"},
    )
    for _ in range(2):  # the agent says it again until it is acknowledged
        pair.control.send(complete.encode())
        answer = received(pair.control)
        assert answer.type == MessageType.AGENT_TASK_ACKNOWLEDGE
        assert answer.json() == {
            "SchemaVersion": 1,
            "MessageId": str(complete.id),
            "TaskId": pair.id,
            "Topic": "t",
        }
    closed = received(pair.client)
    assert closed.type == MessageType.CHANNEL_CLOSED
    body = closed.json()
    assert (body["SessionId"], body["Output"], body["MessageType"], body["SchemaVersion"]) == (
        pair.id,
        "no such port",
        "channel_closed",
        1,
    )
    assert body["MessageId"] == str(closed.id)
    with pytest.raises(ConnectionClosed):
        pair.client.recv(timeout=LIMIT)
    # A client that comes late hears the same.
    assert received(client_socket(pair.opening)).json()["Output"] == "no such port"


def test_a_node_cannot_complete_the_session_of_another(stack: Stack) -> None:
    pair, other = Pair(stack), Pair(stack)
    other.control.send(Message.of(MessageType.AGENT_TASK_COMPLETE, {"TaskId": pair.id}).encode())
    assert received(other.control).type == MessageType.AGENT_TASK_ACKNOWLEDGE
    assert pair.session.ended is None


def test_terminating_tells_the_agent_through_its_control_channel(stack: Stack) -> None:
    pair = Pair(stack)
    for _ in range(2):  # twice does no harm
        assert stack.call("TerminateSession", SessionId=pair.id) == {"SessionId": pair.id}
    told = received(pair.control)
    assert told.type == MessageType.CHANNEL_CLOSED
    assert told.json()["SessionId"] == pair.id
    assert received(pair.client).type == MessageType.CHANNEL_CLOSED
    with pytest.raises(ServiceError, match="DoesNotExistException"):
        stack.call("TerminateSession", SessionId="unknown")


def test_a_session_whose_client_vanished_waits_paused_for_a_resume(stack: Stack) -> None:
    pair = Pair(stack)
    stack.do(stack.service.drop("client", pair.id))
    assert received(pair.agent).type == MessageType.PAUSE_PUBLICATION
    assert pair.session.status == "Disconnected"
    pair.agent.send(Message.new(MessageType.OUTPUT, b"lost").encode())
    again = stack.call("ResumeSession", SessionId=pair.id)
    assert again["TokenValue"] != pair.opening["TokenValue"]
    with pytest.raises(ConnectionClosed):
        client_socket(pair.opening).recv(timeout=LIMIT)  # the old token is void
    client = client_socket(again)
    assert received(pair.agent).type == MessageType.START_PUBLICATION
    frame = Message.new(MessageType.OUTPUT, b"kept").encode()
    pair.agent.send(frame)
    assert client.recv(timeout=LIMIT) == frame
    stack.call("TerminateSession", SessionId=pair.id)
    assert "TokenValue" not in stack.call("ResumeSession", SessionId=pair.id)
    with pytest.raises(ServiceError, match="DoesNotExistException"):
        stack.call("ResumeSession", SessionId="unknown")


def test_an_idle_session_ends_and_data_keeps_it_alive(stack: Stack) -> None:
    pair = Pair(stack)
    stack.service.idle_seconds = 1.0
    until_ = time.monotonic() + 2.0
    number = 0
    while time.monotonic() < until_:
        pair.client.send(Message.new(MessageType.INPUT, b"keep-alive", sequence=number).encode())
        pair.agent.recv(timeout=LIMIT)
        number += 1
        time.sleep(0.1)
    assert pair.session.ended is None
    closed = received(pair.client)
    assert closed.type == MessageType.CHANNEL_CLOSED
    assert "inactivity" in closed.json()["Output"]
    assert received(pair.control).type == MessageType.CHANNEL_CLOSED


def test_what_is_sent_again_keeps_no_session_alive(stack: Stack) -> None:
    pair = Pair(stack)
    old = Message.new(MessageType.OUTPUT, b"again", sequence=7).encode()
    pair.agent.send(old)
    pair.client.recv(timeout=LIMIT)
    active = pair.session.active
    for frame in (old, Message.new(MessageType.OUTPUT, b"older", sequence=3).encode()):
        pair.agent.send(frame)
        pair.client.recv(timeout=LIMIT)
    acknowledgement = Message.new(MessageType.ACKNOWLEDGE, b"{}").encode()
    pair.client.send(acknowledgement)
    pair.agent.recv(timeout=LIMIT)
    assert pair.session.active == active
    pair.agent.send(Message.new(MessageType.OUTPUT, b"new", sequence=8).encode())
    pair.client.recv(timeout=LIMIT)
    assert pair.session.active > active


def test_messages_are_under_way_for_as_long_as_that_is_set_and_stay_in_order() -> None:
    from tests.session.support import closing

    with closing(Stack()) as by_default:
        assert by_default.service.channels.latency == 0.003
    with closing(Stack(latency=0.2)) as far:
        pair = Pair(far)
        began = time.monotonic()
        for number in range(20):
            pair.agent.send(Message.new(MessageType.OUTPUT, b"%d" % number, sequence=number).encode())
        arrived = [received(pair.client).payload for _ in range(20)]
        assert arrived == [b"%d" % number for number in range(20)]
        assert 0.2 <= time.monotonic() - began < 2.0, "all together, not one by one"
        far.call("TerminateSession", SessionId=pair.session.id)
        assert received(pair.client).type == MessageType.CHANNEL_CLOSED


def test_the_longest_duration_ends_a_busy_session() -> None:
    from tests.session.support import closing

    with closing(Stack(max_seconds=0.3)) as short:
        pair = Pair(short)
        closed = received(pair.client)
        assert "maximum duration" in closed.json()["Output"]


def test_deregistering_ends_the_sessions_and_the_control_channel(stack: Stack, ssm: Any) -> None:
    pair = Pair(stack)
    ssm.deregister_managed_instance(InstanceId=pair.node.id)
    assert received(pair.control).type == MessageType.CHANNEL_CLOSED
    with pytest.raises(ConnectionClosed):
        pair.control.recv(timeout=LIMIT)
    assert not stack.service.active_sessions
    assert pair.node.post(f"control-channel/{pair.node.id}")[0] == 403
    with pytest.raises(ClientError) as caught:
        ssm.deregister_managed_instance(InstanceId=pair.node.id)
    assert code_of(caught) == "InvalidInstanceId"


def test_faults_answer_an_operation_with_an_error(stack: Stack) -> None:
    stack.service.faults["CreateActivation"] = ServiceError("ThrottlingException", "slowly")
    with pytest.raises(ServiceError, match="slowly"):
        stack.call("CreateActivation", IamRole="r")
    assert ServiceError("A", "b").to_json() == {"__type": "A", "message": "b"}
