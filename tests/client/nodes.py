"""Managed nodes in the local emulator's service, as a container's activation and agent make them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from smssh_plugin.aws.session import AwsSession

if TYPE_CHECKING:
    import pytest

    from tests.local.service_harness import Service

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINQQx6MFgikuayP3KjGtBfmH0qBGmr9Jsm+oj438aNTJ"


def use(service: Service, monkeypatch: pytest.MonkeyPatch) -> AwsSession:
    """Point this process's AWS at the service, whatever tests before it in this process have left for all of theirs."""
    for name in (
        *("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"),
        *("AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_SAGEMAKER"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return AwsSession()


def add_node(service: Service, job: str, kind: str = "training", host: str = "algo-1", **tags: str) -> str:
    """A node that is online; answers its id. Tags by their names without SMSSH, `HostKey=...`."""
    own = {
        "": "0.1.0",
        "Job": job,
        "Kind": kind,
        "Host": host,
        "HostKey": HOST_KEY,
        "Port": "2222",
        "User": "root",
        "Created": f"{time.time():.0f}",
        **tags,
    }

    def call(operation: str, access_key: str | None = None, **body: Any) -> dict[str, Any]:
        return service.do(service.sessions.handle(operation, body, access_key))

    made = call(
        "CreateActivation",
        IamRole="role",
        DefaultInstanceName=job,
        Tags=[{"Key": f"SMSSH{name}", "Value": value} for name, value in own.items()],
    )
    node = call(
        "RegisterManagedInstance",
        ActivationId=made["ActivationId"],
        ActivationCode=made["ActivationCode"],
        PublicKey="key",
        Fingerprint="fingerprint",
    )["InstanceId"]
    call("UpdateInstanceInformation", node, InstanceId=node, AgentVersion="3.3.0.0")
    return str(node)


def set_state(service: Service, node: str, state: str) -> None:
    """What a container does when its state changes."""
    set_tag(service, node, "SMSSHState", state)


def set_tag(service: Service, node: str, key: str, value: str) -> None:
    """Give a node a tag."""
    body = {"ResourceType": "ManagedInstance", "ResourceId": node, "Tags": [{"Key": key, "Value": value}]}
    service.do(service.sessions.handle("AddTagsToResource", body, None))
