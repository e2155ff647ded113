"""What a test may ask of the local emulator that AWS has nothing for: faults, cuts, events, settings."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from smssh_plugin.local.faults import Fault, Faults
from smssh_plugin.local.service_error import ServiceError
from smssh_plugin.session.wire.frames import Message, MessageType
from tests.local.service_harness import Service, running, signed
from tests.local.session_client import Client
from tests.session.conftest import agent, echo, new_agent, stack  # noqa: F401 - fixtures
from tests.waiting import LIMIT, until

from .test_session_service import FakeNode, Pair, received

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.session.support import Agent, EchoServer, Stack


class Api:
    """The control API of a service."""

    def __init__(self, url: str) -> None:
        self._place = urlsplit(url).netloc

    def __call__(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(self._place, timeout=LIMIT)
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, f"/_smssh/{path}", data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            self.status = answer.status
            return json.loads(answer.read())
        finally:
            connection.close()


@pytest.fixture
def api(stack: Stack) -> Api:
    return Api(stack.url)


@pytest.fixture
def service() -> Iterator[Service]:
    with running() as made:
        yield made


# Faults.


def apply(faults: Faults, operation: str) -> str:
    """What comes of an operation: the error's code."""
    try:
        asyncio.run(faults.apply(operation))
    except ServiceError as error:
        return error.code
    return ""


def test_the_first_fault_that_fits_happens_as_often_as_it_is_to() -> None:
    faults = Faults()
    faults.add(Fault("ssm:Start*", "First", times=2))
    faults.add(Fault("ssm:*", "Second"))
    assert [apply(faults, "ssm:StartSession") for _ in range(3)] == ["First", "First", "Second"]
    assert apply(faults, "ssm:GetDocument") == "Second"
    assert apply(faults, "s3:PUT") == ""
    faults["GetDocument"] = ServiceError("Third", "t")
    faults.clear()
    assert apply(faults, "ssm:GetDocument") == ""


def test_a_throttle_lets_so_many_calls_a_second_through() -> None:
    now = 100.0
    faults = Faults(lambda: now)
    faults.add(Fault("*", "ThrottlingException", per_second=3))
    assert [apply(faults, "ssm:X") for _ in range(5)] == ["", "", "", *["ThrottlingException"] * 2]
    now += 0.4
    assert [apply(faults, "ssm:X") for _ in range(2)] == ["", "ThrottlingException"]
    now += 60
    assert [apply(faults, "ssm:X") for _ in range(4)].count("") == 3
    faults.clear()
    faults.add(Fault("*", "ThrottlingException", per_second=0))
    now += 60
    assert apply(faults, "ssm:X") == "ThrottlingException"


def test_a_delay_by_itself_costs_time_and_nothing_else() -> None:
    faults = Faults()
    faults.add(Fault("*", delay=0.05))
    began = time.monotonic()
    assert apply(faults, "ssm:X") == ""
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation": ""},
        {"operation": 5},
        {"operation": "*", "delay": -1},
        {"operation": "*", "delay": 601},
        {"operation": "*", "times": 0},
        {"operation": "*", "per_second": -1},
        {"operation": "*", "status": 99},
        {"operation": "*", "code": ["x"]},
        {"operation": "*", "delay": "soon"},
        {"operation": "*", "nonsense": 1},
        {"operation": "*", "happened": 1},
        {},
    ],
)
def test_what_is_not_a_fault_is_refused_with_the_reason(api: Api, wrong: dict[str, Any]) -> None:
    assert "error" in api("POST", "faults", wrong)
    assert api.status == 400
    assert api("GET", "faults") == {"faults": []}


def test_faults_come_and_go_over_http(api: Api, stack: Stack) -> None:
    made = api(
        "POST", "faults", {"operation": "ssm:StartSession", "code": "AccessDeniedException", "times": 5}
    )
    with pytest.raises(ServiceError, match="AccessDeniedException: smssh local was told"):
        stack.call("StartSession", Target="t")
    (shown,) = api("GET", "faults")["faults"]
    assert (shown["id"], shown["happened"], shown["times"]) == (made["id"], 1, 5)
    assert api("DELETE", f"faults/{made['id']}") == {}
    with pytest.raises(ServiceError, match="TargetNotConnected"):
        stack.call("StartSession", Target="t")
    api("DELETE", f"faults/{made['id']}")
    assert api.status == 404
    api("POST", "faults", {"operation": "*", "code": "X"})
    api("DELETE", "faults")
    assert api("GET", "faults") == {"faults": []}


def test_channels_fail_like_operations(stack: Stack) -> None:
    node = FakeNode(stack)
    for operation, path in (
        ("CreateControlChannel", f"control-channel/{node.id}"),
        ("CreateDataChannel", "data-channel/s"),
    ):
        stack.service.faults.add(Fault(f"ssmmessages:{operation}", "Odd", "<why>", 503, times=1))
        status, kind, body = node.post(path)
        assert (status, body) == (503, "<Odd><Message>&lt;why&gt;</Message></Odd>")
        assert "xml" in kind
    stack.service.faults.add(Fault("ssmmessages:CreateControlChannel", hang_up=True, times=1))
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        node.post(f"control-channel/{node.id}")
    assert node.post(f"control-channel/{node.id}")[0] == 201


def test_any_operation_of_any_service_can_fail(service: Service) -> None:
    faults = service.sessions.faults
    call = {
        "sagemaker:ListTrainingJobs": service.sagemaker.list_training_jobs,
        "ssm:DescribeActivations": lambda: service.client("ssm").describe_activations(),
        "ssm:GetParameter": lambda: service.client("ssm").get_parameter(Name="p"),
        "kms:ListKeys": lambda: service.client("kms").list_keys(),
        "sts:GetCallerIdentity": lambda: service.client("sts").get_caller_identity(),
        "s3:GET": service.s3.list_buckets,
    }
    for operation, act in call.items():
        fault = faults.add(Fault(operation, "ThrottlingException", "Rate exceeded"))
        with pytest.raises(ClientError) as caught:
            act()
        assert caught.value.response["Error"]["Code"] == "ThrottlingException", operation
        assert fault.happened >= 1
        faults.clear()
    assert service.client("sts").get_caller_identity()["Account"]
    for operation in ("sagemaker:ListTrainingJobs", "sts:*"):
        faults.add(Fault(operation, hang_up=True))
        with pytest.raises((HTTPClientError, EndpointConnectionError)):
            call["sts:GetCallerIdentity" if operation == "sts:*" else operation]()
        faults.clear()


# Cuts.


@pytest.mark.parametrize("side", ["client", "agent"])
def test_a_side_is_cut_in_the_middle_of_a_message(
    agent: Agent, stack: Stack, echo: EchoServer, api: Api, side: str
) -> None:
    opening = stack.call(
        "StartSession",
        Target=agent.node,
        DocumentName="AWS-StartSSHSession",
        Parameters={"portNumber": [str(echo.port)]},
    )
    made = api("POST", "cuts", {"side": side, "subject": opening["SessionId"], "after": 30_000})
    client = Client(opening)
    client.wait_complete()
    sent = bytes(range(256)) * 400
    for start in range(0, len(sent), 1000):
        client.send(sent[start : start + 1000])
    session = stack.service.sessions[opening["SessionId"]]
    opened = f"{side}-open"
    if side == "client":
        until(lambda: session.client is None, what="the cut")
        client.resume(stack.call("ResumeSession", SessionId=session.id))
    until(lambda: stack.events(opened).count(session.id) == 2)
    client.wait(lambda: len(client.output) == len(sent), "everything, in the end", seconds=LIMIT)
    assert client.output == sent
    assert made["id"] not in {cut["id"] for cut in api("GET", "cuts")["cuts"]}


def test_a_cut_without_bytes_is_a_cut_now(agent: Agent, stack: Stack, api: Api) -> None:
    api("POST", "cuts", {"side": "control", "subject": agent.node})
    until(lambda: stack.events("control-open").count(agent.node) == 2)
    assert "subject" in api("POST", "cuts", {"side": "agent"})["error"]


def test_a_cut_is_for_connections_of_a_node_of_a_session_or_of_anybody(stack: Stack, api: Api) -> None:
    first, second = Pair(stack), Pair(stack)
    made = api("POST", "cuts", {"side": "agent", "subject": first.node.id, "after": 0, "times": 9})
    link, other = first.session.agent, second.session.agent
    assert link is not None
    assert other is not None
    assert (link.cut_at, other.cut_at) == (link.moved, None)
    assert api("GET", "cuts")["cuts"][0]["times"] == 8
    api("DELETE", f"cuts/{made['id']}")
    api("DELETE", f"cuts/{made['id']}")
    assert api.status == 404
    for wrong in ({"side": "both"}, {"side": "agent", "after": -1}, {"side": "agent", "times": 0}):
        assert "error" in api("POST", "cuts", wrong)


# Events, sessions, settings.


def test_events_can_be_waited_for(api: Api, stack: Stack) -> None:
    assert api("GET", "events?wait=0.01&kind=CreateActivation") == {"events": []}
    timer = threading.Timer(0.1, stack.call, ["CreateActivation"], {"IamRole": "r"})
    timer.start()
    (event,) = api("GET", "events?wait=30&kind=CreateActivation")["events"]
    timer.join()
    assert event["kind"] == "CreateActivation"
    assert api("GET", f"events?after={event['number']}") == {"events": []}
    stack.call("CreateActivation", IamRole="r")
    (later,) = api("GET", f"events?after={event['number']}")["events"]
    assert later["number"] > event["number"]
    assert api("GET", "events?subject=nobody") == {"events": []}
    assert "number" in api("GET", "events?after=x")["error"]


def test_sessions_show_what_went_through_them(stack: Stack, api: Api) -> None:
    pair = Pair(stack)
    frame = Message.new(MessageType.INPUT, b"x" * 880).encode()
    pair.client.send(frame)
    pair.agent.recv(timeout=LIMIT)
    (shown,) = api("GET", "sessions")["sessions"]
    assert (shown["SessionId"], shown["Sent"], shown["Received"]) == (pair.id, len(frame), 0)
    assert shown["ClientConnected"]
    assert shown["AgentConnected"]


def test_settings_change_whole_or_not_at_all(stack: Stack, api: Api) -> None:
    changed = api("POST", "settings", {"idle_seconds": 5, "max_seconds": 7.5, "tier": "standard"})
    assert (changed["idle_seconds"], changed["max_seconds"], changed["tier"]) == (5, 7.5, "standard")
    for wrong in (
        {"idle_seconds": 3, "max_seconds": 0},
        {"idle_seconds": True},
        {"tier": "gold"},
        {"signed_clients": 1},
        {"token_seconds": None},
        {"nonsense": 1},
    ):
        assert "error" in api("POST", "settings", wrong)
        assert api("GET", "settings") == changed
    assert api("POST", "settings", {"max_seconds": None, "signed_clients": True})["max_seconds"] is None
    assert stack.service.channels.signed_clients


def test_a_node_is_told_to_replace_its_key(stack: Stack, api: Api) -> None:
    node = FakeNode(stack)
    assert api("POST", f"nodes/{node.id}", {"rotate": True}) == {"id": node.id, "rotate": True}
    token = stack.call("RequestManagedInstanceRoleToken", node.id, Fingerprint=node.fingerprint)
    assert token["UpdateKeyPair"] is True
    assert "rotate" in api("POST", f"nodes/{node.id}", {"rotate": 1})["error"]
    api("POST", "nodes/mi-unknown", {"rotate": True})
    assert api.status == 404


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"[" * 100_000, b'"x"'])
def test_a_request_that_is_no_object_is_refused(api: Api, raw: bytes) -> None:
    assert "error" in api("POST", "settings", raw=raw)
    assert api.status == 400


def test_what_there_is_not_is_named(api: Api) -> None:
    assert "GET /_smssh/nothing" in api("GET", "nothing")["error"]
    assert api.status == 404
    api("PUT", "faults", {})
    assert api.status in (404, 405)


def test_the_control_api_is_in_front_of_every_bucket(service: Service) -> None:
    url = f"{service.endpoint}/_smssh/faults"
    request = urllib.request.Request(url, headers=signed("GET", url, service="smssh"))
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer) == {"faults": []}


def test_a_session_of_a_standard_tier_is_refused_as_aws_does(stack: Stack) -> None:
    node = FakeNode(stack)
    control = node.connected()
    setting = "/ssm/managed-instance/activation-tier"
    arn = f"arn:aws:ssm:us-east-1:123456789012:servicesetting{setting}"
    assert stack.call("GetServiceSetting", SettingId=setting)["ServiceSetting"]["SettingValue"] == "advanced"
    stack.call("ResetServiceSetting", SettingId=arn)
    with pytest.raises(ServiceError, match="BadRequest: Enable advanced-instances tier"):
        stack.call("StartSession", Target=node.id, DocumentName="AWS-StartSSHSession")
    stack.call("UpdateServiceSetting", SettingId=arn, SettingValue="advanced")
    stack.call("StartSession", Target=node.id, DocumentName="AWS-StartSSHSession")
    assert received(control).type == "interactive_shell"
    for wrong in ({"SettingId": "/ssm/other"}, {"SettingId": setting, "SettingValue": "gold"}):
        with pytest.raises(ServiceError):
            stack.call("UpdateServiceSetting", **wrong)
