"""`smssh cleanup` as a person and a nightly job see it, against the local emulator."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.at_once import THREADS
from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli import main
from smssh_plugin.container import aws_calls
from smssh_plugin.container.managed_node import ContainerNode
from smssh_plugin.errors import ExitStatus
from smssh_plugin.hookspecs import Job
from smssh_plugin.local.faults import Fault
from smssh_plugin.local.sessions.nodes import Node
from smssh_plugin.setup import stale
from smssh_plugin.setup.documents import documents
from smssh_plugin.setup.parts import Setup
from smssh_plugin.setup.plan import Plan
from tests.client.nodes import add_node, set_tag, use
from tests.container.agents import context
from tests.local.service_harness import processing, training, transform
from tests.setup.samples import ACCOUNT, listed
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local.service_harness import Service

HOUR, DAY = 3600.0, 86400.0
HELPER_TAGS = ("SSHOwner", "SSHCreator", "SSHTimestamp", "SSHResourceName", "SSHResourceArn")


@pytest.fixture
def account(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Account:
    use(service, monkeypatch)
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return Account(service, monkeypatch)


class Account:
    """An account with jobs and what they left behind; and what the command did there."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service = service
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Callable[[], None]] = {}
        """What happens right before an operation is called, once."""
        plain = AwsSession.call

        def call(session: AwsSession, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
            if (action := self.before.pop(operation, None)) is not None:
                action()
            self.calls[operation] += 1
            return plain(session, service, operation, **arguments)

        monkeypatch.setattr(AwsSession, "call", call)

    @property
    def nodes(self) -> set[str]:
        return set(self.service.sessions.nodes.nodes)

    @property
    def activations(self) -> set[str]:
        return set(self.service.sessions.nodes.activations)

    def job(self, name: str, outcome: str = "succeed", kind: str = "Training") -> str:
        """A job, ended unless its outcome is `hold`."""
        request = {"Training": training, "Processing": processing, "Transform": transform}[kind]()
        if kind == "Transform":
            image = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/job:1"}
            role = "arn:aws:iam::123456789012:role/SageMakerRole"
            self.service.sagemaker.create_model(
                ModelName="model", PrimaryContainer=image, ExecutionRoleArn=role
            )
        else:
            request["Environment"] = {"OUTCOME": outcome}
        create = getattr(self.service.sagemaker, f"create_{kind.lower()}_job")
        create(**{f"{kind}JobName": name}, **request)
        status = {"hold": "InProgress", "fail": "Failed"}.get(outcome, "Completed")
        self.service.job_status(kind, name, status)
        return name

    def node(self, job: str, age: float = 2 * DAY, owner: str = "", **more: str) -> str:
        """A node that was last seen this long ago; its activation was deleted, as jobs do."""
        node = add_node(self.service, job, **more)
        if owner:
            set_tag(self.service, node, "SSHOwner", owner)
        return self.aged(node, age)

    def aged(self, node: str, age: float) -> str:
        kept = self.service.sessions.nodes
        found = kept.nodes[node]
        found.pinged = found.registered = time.time() - age
        kept.activations.pop(found.activation.id, None)
        return node

    def activation(self, job: str, age: float = 2 * DAY, lasts: float = HOUR / 2, **tags: str) -> str:
        """An activation that was made this long ago, good for half an hour."""
        own = {"SMSSH": "0.1.0", "SMSSHJob": job, "SMSSHKind": "training", **tags}
        made = self.service.sessions.nodes.create_activation(
            {
                "IamRole": "role",
                "DefaultInstanceName": job,
                "Tags": [{"Key": key, "Value": value} for key, value in own.items()],
            }
        )
        found = self.service.sessions.nodes.activations[made["ActivationId"]]
        found.created = time.time() - age
        found.expires = found.created + lasts
        return found.id

    def of_helper(self, age: float = 2 * DAY, without: str = "", **tags: str) -> str:
        """A node as sagemaker-ssh-helper makes it: no name, other tags."""
        own = dict.fromkeys(HELPER_TAGS, "x") | {"SSHTimestamp": "1700000000"} | tags
        own.pop(without, None)
        kept = self.service.sessions.nodes
        listed = [{"Key": key, "Value": value} for key, value in own.items()]
        made = kept.create_activation({"IamRole": "role", "Tags": listed})
        node = kept.register(
            {
                "ActivationId": made["ActivationId"],
                "ActivationCode": made["ActivationCode"],
                "PublicKey": "key",
                "Fingerprint": "print",
            }
        )["InstanceId"]
        return self.aged(node, age)

    def foreign(self, count: int) -> set[str]:
        """Servers of others, long offline."""
        kept = self.service.sessions.nodes
        request = {
            "IamRole": "servers",
            "RegistrationLimit": 1000,
            "DefaultInstanceName": "server",
            "Tags": [{"Key": "Team", "Value": "ops"}],
        }
        own: set[str] = set()
        while len(own) < count:
            made = kept.create_activation(request)
            for _ in range(min(1000, count - len(own))):
                node = kept.register({**made, "PublicKey": "key", "Fingerprint": "print"})["InstanceId"]
                kept.nodes[node].registered = time.time() - 100 * DAY
                own.add(node)
        return own


def fault(account: Account, operation: str, code: str, message: str = "", **more: Any) -> Fault:
    return account.service.sessions.faults.add(Fault(operation, code, message, **more))


def denied(action: str) -> str:
    return (
        f"User: arn:aws:sts::123456789012:assumed-role/a/b is not authorized to perform: {action} on resource: "
        f"arn:aws:ssm:us-east-1:123456789012:* because no identity-based policy allows the {action} action"
    )


def test_it_shows_what_it_would_remove_and_removes_nothing(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("done", "fail")
    node, activation = account.node("done", owner="ann"), account.activation("done")
    assert main(["cleanup"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["WHAT", "ID", "HOST", "OR", "JOB", "OWNER", "LAST", "SEEN", "REASON"]
    address, reason = "algo-1.done.training.sagemaker", "its job has ended (Failed)"
    assert re.split(" {2,}", lines[1]) == ["node", node, address, "ann", "2 d ago", reason]
    assert lines[2].startswith(f"activation  {activation}  algo-1.done.training.sagemaker")
    assert lines[3] == "would remove 1 node and 1 activation in us-east-1; --apply removes them"
    assert (account.nodes, account.activations) == ({node}, {activation})
    assert not {name for name in account.calls if not name.startswith(("describe_", "list_"))}


def test_what_is_stale_is_removed_and_everything_else_stays(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kind in (("train", "Training"), ("process", "Processing"), ("score", "Transform")):
        account.job(name, kind=kind)
    account.job("running", "hold")
    stale_nodes = {
        account.node("train"),
        account.node("train", host="algo-2"),
        account.node("process", kind="processing"),
        account.node("score", kind="transform"),
        account.node("never-was"),
        account.node("hostname", kind="inference"),
    }
    living = add_node(account.service, "train")  # online, although its job has ended
    account.service.sessions.nodes.activations.clear()
    stale_activations = {account.activation("train"), account.activation("never-was")}
    renamed = account.node("train")
    account.service.sessions.nodes.nodes[renamed].activation.name = "payroll-server"
    untagged = account.node("train")
    account.service.sessions.nodes.remove_tags(
        {"ResourceType": "ManagedInstance", "ResourceId": untagged, "TagKeys": ["SMSSHKind"]}
    )
    kept_nodes = {
        living,
        renamed,
        untagged,
        account.node("running"),
        account.node("train", age=HOUR / 2),
        account.node("never-was", age=23 * HOUR),
        account.node("hostname", age=23 * HOUR, kind="inference"),
        account.of_helper(),
        *account.foreign(3),
    }
    kept_activations = {account.activation("running"), account.activation("train", age=HOUR / 2)}
    kept_activations |= account.activations - stale_activations - kept_activations  # the servers'
    assert account.nodes == stale_nodes | kept_nodes
    assert main(["cleanup", "--apply", "--yes"]) == 0
    shown = capsys.readouterr()
    assert account.nodes == kept_nodes
    assert account.activations == kept_activations
    assert shown.err == ""
    for words in (
        "kept: 1 node: its job has not ended (InProgress)",
        "kept: 1 activation: its job has not ended (InProgress)",
        "kept: 1 node: seen less than 1 h ago",
        "kept: 1 activation: made or over less than 1 h ago",
        "kept: 1 node: SageMaker knows no such job, and it was seen less than 1 d ago",
        "kept: 1 node: SageMaker keeps no record of such a host, and it was seen less than 1 d ago",
        "kept: 1 node: online (as it is for 5 minutes after its container was killed)",
        "kept: 1 node: without the tag SMSSHKind",
        "kept: 1 node: its name is not that of the job in its tags",
    ):
        assert words in shown.out.splitlines()
    assert shown.out.splitlines()[-1] == "removed 8 of 8 in us-east-1"
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to remove in us-east-1"


def test_a_name_that_sagemaker_refuses_is_no_job_that_has_ended(account: Account) -> None:
    """What it says of such a name begins as what it says of a job that is not there: a ValidationException."""
    node = account.node("a_name.with/more", age=2 * HOUR)
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert node in account.nodes
    assert account.calls["describe_training_job"] == 0
    other = account.node("plain")
    fault(account, "sagemaker:DescribeTrainingJob", "ValidationException", "1 validation error detected")
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.REFUSED
    assert other in account.nodes


@pytest.mark.parametrize("words", [("--older-than", "7d"), ("--older-than", "49h"), ("--owner", "ann")])
def test_options_narrow_it(account: Account, words: tuple[str, str]) -> None:
    account.job("done")
    mine = account.node("done", age=8 * DAY, owner="ann")
    other = account.node("done", age=2 * DAY, owner="ben")
    mine_too = account.activation("done", age=8 * DAY, SSHOwner="ann")
    other_too = account.activation("done", age=2 * DAY, SSHOwner="ben")
    assert main(["cleanup", "--apply", "--yes", *words]) == 0
    assert (account.nodes, account.activations) == ({other}, {other_too})
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert not {mine, other} & account.nodes
    assert not {mine_too, other_too} & account.activations


@pytest.mark.parametrize("job", ["done", "never-was"])
def test_what_a_container_of_ours_leaves_has_all_that_is_asked_for(
    account: Account, tmp_path: Path, job: str
) -> None:
    """By the container's own code, up to the moment in which it is killed."""
    account.job("done")
    settings = {"SMSSH_OWNER": "ann", "AWS_ENDPOINT_URL": account.service.endpoint}
    made = ContainerNode(
        context(tmp_path, job=Job(job, "training", "algo-2"), **settings),
        aws_calls.client("ssm", "us-east-1"),
    )
    code = made._activate()
    kept = account.service.sessions.nodes
    request = {"ActivationId": made._activation, "ActivationCode": code}
    node = kept.register({**request, "PublicKey": "key", "Fingerprint": "print"})["InstanceId"]
    activation = kept.activations[made._activation]
    kept.nodes[node].registered = activation.created = time.time() - 2 * DAY
    activation.expires = activation.created + HOUR / 2
    assert main(["cleanup", "--apply", "--yes", "--owner", "ben"]) == 0
    assert (account.nodes, account.activations) == ({node}, {activation.id})
    assert main(["cleanup", "--apply", "--yes", "--owner", "ann"]) == 0
    assert not account.nodes | account.activations


def test_a_status_that_is_not_known_is_not_offline(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.job("done")
    node = account.node("done")
    monkeypatch.setattr(Node, "ping_status", lambda *_: "Hibernating")
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert node in account.nodes


def test_json(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.job("done")
    account.job("running", "hold")
    node, running = account.node("done", owner="ann"), account.node("running")
    assert main(["cleanup", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {name: answer[name] for name in ("version", "region", "applied", "errors")} == {
        "version": 1,
        "region": "us-east-1",
        "applied": False,
        "errors": [],
    }
    found = {entry["id"]: entry for entry in answer["entries"]}
    assert found[node] == {
        "what": "node",
        "id": node,
        "made_by": "smssh",
        "address": "algo-1.done.training.sagemaker",
        "kind": "training",
        "job": "done",
        "owner": "ann",
        "last_seen": pytest.approx(time.time() - 2 * DAY, abs=LIMIT),
        "stale": True,
        "reason": "its job has ended (Completed)",
        "outcome": "stale",
        "detail": "",
    }
    assert (found[running]["stale"], found[running]["outcome"]) == (False, "kept")
    assert main(["cleanup", "--json", "--apply", "--yes"]) == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert answer["applied"]
    assert {entry["id"]: entry["outcome"] for entry in answer["entries"]} == {
        node: "removed",
        running: "kept",
    }
    assert shown.err == "removed 1 of 1 in us-east-1\n"


# --------------------------------------------------------------------------------------------- of sagemaker-ssh-helper


def test_what_sagemaker_ssh_helper_left_is_removed_on_request(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("done")
    account.job("running", "hold")
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/{}"

    def node(job: str, **more: Any) -> str:
        return account.of_helper(SSHResourceName=job, SSHResourceArn=arn.format(job.lower()), **more)

    ended, endpoint = node("done"), account.of_helper(SSHResourceName="", SSHResourceArn="")
    kept = {node("running"), node("done", age=60.0), account.of_helper(age=HOUR * 2, SSHResourceArn="")}
    # Any offline server without SSHTimestamp was selected by sagemaker-ssh-helper's own tool.
    kept |= {node("done", without=tag) for tag in ("SSHOwner", "SSHCreator", "SSHTimestamp")}
    kept |= account.foreign(2)
    activation = account.service.sessions.nodes.create_activation(
        {
            "IamRole": "role",
            "Tags": [{"Key": key, "Value": "1"} for key in ("SSHOwner", "SSHCreator", "SSHTimestamp")],
        }
    )["ActivationId"]
    used = account.service.sessions.nodes.activations[activation]
    used.created, used.expires = time.time() - 3 * DAY, time.time() - 2 * DAY
    before = account.nodes
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert account.nodes == before
    assert activation in account.activations
    assert main(["cleanup", "--include-helper", "--apply", "--yes"]) == 0
    assert account.nodes == before - {ended, endpoint} == kept
    assert activation not in account.activations
    assert "kept: 1 node: without the tag SSHOwner" in capsys.readouterr().out


def test_our_tags_on_servers_of_others_remove_none_of_them(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tags can be put on any server; its name, and what it was registered with, cannot be changed."""
    (ours_in_name,) = account.foreign(1)  # it has the name server
    for key, value in {"SMSSH": "0.1.0", "SMSSHJob": "server", "SMSSHKind": "training"}.items():
        set_tag(account.service, ours_in_name, key, value)
    kept = account.service.sessions.nodes
    made = kept.create_activation({"IamRole": "servers", "DefaultInstanceName": "bastion"})
    named = kept.register({**made, "PublicKey": "key", "Fingerprint": "print"})["InstanceId"]
    for tag in HELPER_TAGS:
        set_tag(account.service, named, tag, "1")
    account.aged(named, 100 * DAY)
    assert main(["cleanup", "--include-helper", "--apply", "--yes"]) == 0
    assert account.nodes == {ours_in_name, named}
    out = capsys.readouterr().out
    assert "kept: 1 node: its activation was not made by smssh" in out
    assert "kept: 1 node: it has a name, which sagemaker-ssh-helper gives to none" in out


def test_a_node_with_tags_of_both_is_judged_as_ours(account: Account) -> None:
    account.job("running", "hold")
    node = account.node("running", owner="ann")
    for tag in ("SSHCreator", "SSHTimestamp"):
        set_tag(account.service, node, tag, "1")
    assert main(["cleanup", "--include-helper", "--apply", "--yes"]) == 0
    assert node in account.nodes


# ------------------------------------------------------------------------------------- what changes while one thinks


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("online", "online (as it is for 5 minutes after its container was killed)"),
        ("owner", "its tags have changed"),
        ("tag", "its tags have changed"),
        ("job", "its job has not ended (InProgress)"),
        ("gone", "somebody else removed it"),
    ],
)
def test_what_is_not_stale_any_more_right_before_its_removal_stays(
    account: Account, capsys: pytest.CaptureFixture[str], change: str, why: str
) -> None:
    node = account.node("starts-late", owner="ann")
    kept = account.service.sessions.nodes

    def happens() -> None:
        if change == "online":
            kept.nodes[node].pinged = time.time()
        elif change == "owner":
            set_tag(account.service, node, "SSHOwner", "ben")
        elif change == "tag":
            kept.remove_tags({"ResourceType": "ManagedInstance", "ResourceId": node, "TagKeys": ["SMSSH"]})
        elif change == "job":
            account.job("starts-late", "hold")
        else:
            kept.deregister(node)

    def look_is_over() -> None:
        # The last thing that a look asks for is the job; a removal begins with it.
        account.before["describe_training_job"] = happens

    account.before["describe_training_job"] = look_is_over
    assert main(["cleanup", "--apply", "--yes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    outcome = "gone" if change == "gone" else "kept"
    assert lines[-2:] == [f"{outcome}: node {node}: {why}", f"removed 0 of 1 in us-east-1; 1 {outcome}"]
    assert (node in account.nodes) == (change != "gone")
    assert account.calls["deregister_managed_instance"] == 0


def test_the_tags_are_the_last_that_is_read_before_a_removal(account: Account) -> None:
    account.job("done")
    account.node("done")
    account.activation("done")
    order: list[str] = []
    counted = account.calls
    plain = counted.__class__.__setitem__

    class Order(Counter[str]):
        def __setitem__(self, name: str, value: int) -> None:
            order.append(name)
            plain(self, name, value)

    account.calls = Order()
    assert main(["cleanup", "--apply", "--yes"]) == 0
    at = order.index("deregister_managed_instance")
    assert order[at - 1] == "list_tags_for_resource"
    # DescribeActivations answers with the tags.
    assert order[order.index("delete_activation") - 1] == "describe_activations"


def test_somebody_else_removes_it_in_the_same_moment(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("done")
    node, activation = account.node("done"), account.activation("done")
    kept = account.service.sessions.nodes
    account.before["deregister_managed_instance"] = lambda: kept.deregister(node) and None
    account.before["delete_activation"] = lambda: kept.activations.pop(activation) and None
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "removed 0 of 2 in us-east-1; 2 gone"


# ------------------------------------------------------------------------------------------------- accounts and trouble


def test_the_calls_do_not_grow_with_the_nodes_of_others(account: Account) -> None:
    account.job("done")
    account.node("done")
    account.node("done", host="algo-2")
    living = [account.node(f"lives-{number}", age=0.0) for number in range(3)]
    assert main(["cleanup"]) == 0
    few = dict(account.calls)
    account.foreign(2000)
    account.calls.clear()
    examined = account.service.sessions.nodes.examined
    assert main(["cleanup"]) == 0
    assert dict(account.calls) == few
    assert few == {
        "describe_instance_information": 1,
        "list_tags_for_resource": 2,
        "describe_activations": 1,
        "describe_training_job": 1,
    }
    assert account.service.sessions.nodes.examined - examined == 2 + len(living)


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("DescribeInstanceInformation", "ssm:DescribeInstanceInformation"),
        ("ListTagsForResource", "ssm:ListTagsForResource"),
    ],
)
def test_without_the_right_to_look_nothing_is_removed(
    account: Account, capsys: pytest.CaptureFixture[str], operation: str, action: str
) -> None:
    account.job("done")
    node = account.node("done")
    fault(account, f"ssm:{operation}", "AccessDeniedException", denied(action))
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.REFUSED
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0].startswith(f"error: access denied: {operation}: User: arn:aws")
    assert f"hint: ask for the permission {action}" in shown.err
    assert shown.err.count("error: ") == 1
    assert node in account.nodes


def test_without_the_right_to_see_activations_nodes_are_removed(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("done")
    node, activation = account.node("done"), account.activation("done")
    fault(account, "ssm:DescribeActivations", "AccessDeniedException", denied("ssm:DescribeActivations"))
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.REFUSED
    assert "activations are not looked at" in capsys.readouterr().err
    assert (node in account.nodes, activation in account.activations) == (False, True)


def test_a_job_that_may_not_be_described_keeps_its_nodes(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("done")
    account.job("process", kind="Processing")
    hidden = {account.node("done"), account.node("done", host="algo-2")}
    account.node("process", kind="processing")
    fault(account, "sagemaker:DescribeTrainingJob", "AccessDeniedException", denied("sagemaker:Describe"))
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.REFUSED
    assert account.nodes == hidden
    why = "cannot tell whether its job has ended: access denied: sagemaker:DescribeTrainingJob"
    assert f"kept: 2 nodes: {why}" in capsys.readouterr().out.splitlines()


def test_a_removal_that_is_denied_is_tried_once_for_each_owner(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("done")
    nodes = {account.node("done", owner=owner) for owner in ("ann", "ann", "ann", "ben")}
    activation = account.activation("done")
    fault(
        account,
        "ssm:DeregisterManagedInstance",
        "AccessDeniedException",
        denied("ssm:DeregisterManagedInstance"),
    )
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.REFUSED
    shown = capsys.readouterr()
    assert account.nodes == nodes
    assert activation not in account.activations
    assert account.calls["deregister_managed_instance"] == 2
    assert shown.err.count("error: access denied: DeregisterManagedInstance: ") == 1
    assert shown.err.count("hint: ask for the permission ssm:DeregisterManagedInstance") == 1
    assert shown.out.splitlines()[-1] == "removed 1 of 5 in us-east-1; 4 failed"


@pytest.mark.parametrize("operation", ["DeregisterManagedInstance", "ListTagsForResource"])
def test_throttling_that_passes_is_waited_for(account: Account, operation: str) -> None:
    account.job("done")
    account.node("done")
    fault(account, f"ssm:{operation}", "ThrottlingException", "Rate exceeded", times=2)
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert account.nodes == set()


def test_throttling_that_does_not_pass_ends_it_and_the_next_run_goes_on(
    account: Account, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    account.job("done")
    nodes = [account.node("done", age=DAY * (9 - number)) for number in range(4)]
    throttle: list[Fault] = []

    def throttled() -> None:
        account.before["deregister_managed_instance"] = lambda: throttle.append(
            fault(account, "ssm:DeregisterManagedInstance", "ThrottlingException", "Rate exceeded")
        )

    account.before["deregister_managed_instance"] = throttled
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.FAILED
    shown = capsys.readouterr()
    assert account.nodes == set(nodes[1:])
    assert shown.err.splitlines() == [
        "error: DeregisterManagedInstance: Rate exceeded (ThrottlingException)",
        "hint: the account makes too many calls: try again in a minute, or with AWS_MAX_ATTEMPTS=10",
    ]
    assert shown.out.splitlines()[-1] == "removed 1 of 4 in us-east-1; 3 left: run it again"
    account.service.sessions.faults.remove(throttle[0].id)
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert account.nodes == set()


def test_a_cut_connection_leaves_it_open_whether_a_node_is_removed(
    account: Account, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    account.job("done")
    node = account.node("done")
    fault(account, "ssm:DeregisterManagedInstance", "", hang_up=True)
    assert main(["cleanup", "--apply", "--yes"]) == ExitStatus.UNREACHABLE
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-2:] == [
        f"left: node {node}: it may be removed: the service did not say",
        "removed 0 of 1 in us-east-1; 1 left: run it again",
    ]
    assert shown.err.startswith("error: AWS cannot be reached: ")


@pytest.mark.parametrize(
    ("code", "open_"),
    [("InternalServerError", True), ("ThrottlingException", False), ("ExpiredTokenException", False)],
)
def test_only_a_service_that_fails_leaves_it_open_whether_a_node_is_removed(
    account: Account,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    open_: bool,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    account.job("done")
    account.node("done")
    fault(account, "ssm:DeregisterManagedInstance", code, "no")
    assert main(["cleanup", "--apply", "--yes"]) != 0
    shown = capsys.readouterr()
    assert ("it may be removed" in shown.out) is open_
    assert shown.out.splitlines()[-1] == "removed 0 of 1 in us-east-1; 1 left: run it again"


def test_tags_do_not_write_to_the_terminal(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    """The service allows no such tag; another one that answers in its place may."""
    node = account.node("done", owner="ann")
    account.service.sessions.nodes.nodes[node].tags["SSHOwner"] = "x\x1b]52;c;aGk=\x07\n::set-env name=A::b"
    assert main(["cleanup"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert not re.search(r"^::", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--yes"], "--yes goes with --apply"),
        (["--owner", ""], "--owner is empty: leave it out for all owners"),
        (["--older-than", "week"], "'week' is not a duration"),
        (["--older-than", "3651d"], "--older-than is at most 3650d"),
        (["--older-than", "9" * 400], "is too long for a duration"),
        (["--apply"], "--apply asks before it removes anything, and there is nobody to ask"),
        (["--apply", "--json"], "--apply asks before it removes anything, and there is nobody to ask"),
        (["--region", "us-east-1,eu-west-1"], "'us-east-1,eu-west-1' is not an AWS region"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_anything_is_called(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    error: str,
) -> None:
    if "--region" in words:
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert main(["cleanup", *words]) == ExitStatus.USAGE
    assert error in capsys.readouterr().err
    assert not [name for name in account.calls if "--region" not in words]


# ---------------------------------------------------------------------------------------------- a person at a terminal


def started(*words: str) -> tuple[subprocess.Popen[str], int]:
    """The command with a terminal as its stdin, and the terminal's other side."""
    other, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "smssh_plugin.cli", "cleanup", *words],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    os.close(terminal)
    return process, other


@pytest.mark.parametrize(("answer", "removes"), [("y", True), ("yes", True), ("", False), ("n", False)])
def test_a_person_is_asked(account: Account, answer: str, removes: bool) -> None:
    account.job("done")
    account.node("done")
    process, terminal = started("--apply")
    os.write(terminal, f"{answer}\n".encode())
    out, err = process.communicate(timeout=LIMIT)
    os.close(terminal)
    assert "remove 1 node in us-east-1? [y/N] " in err
    assert (account.nodes == set()) == removes
    assert process.returncode == (0 if removes else 1)
    assert ("removed 1 of 1 in us-east-1" in out) == removes
    assert ("nothing was removed" in err) != removes


def test_a_terminal_that_closes_is_no_consent(account: Account) -> None:
    account.job("done")
    node = account.node("done")
    process, terminal = started("--apply")
    assert process.stderr is not None
    until(lambda: process.stderr is not None and process.stderr.read(1) == "?", "the question")
    os.close(terminal)
    process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert node in account.nodes


def test_ctrl_c_while_it_looks_does_not_wait_for_the_service(account: Account) -> None:
    account.job("done")
    nodes = {account.node("done", host=f"algo-{number}") for number in range(1, 30)}
    slow = fault(account, "ssm:ListTagsForResource", "", delay=600.0)
    process, terminal = started("--apply", "--yes")
    until(lambda: slow.happened >= THREADS, "the reading of tags")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    os.close(terminal)
    assert (process.returncode, out, err.strip()) == (ExitStatus.INTERRUPTED, "", "")
    assert account.nodes == nodes


def test_ctrl_c_says_what_was_removed_and_the_next_run_removes_the_rest(account: Account) -> None:
    account.job("done")
    nodes = [account.node("done", age=DAY * (9 - number)) for number in range(3)]
    first = fault(account, "ssm:DeregisterManagedInstance", "", times=1)
    slow = fault(account, "ssm:DeregisterManagedInstance", "", delay=LIMIT)
    process, terminal = started("--apply", "--yes")
    until(lambda: slow.happened, "the second removal")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    os.close(terminal)
    assert first.happened == 1
    assert process.returncode == ExitStatus.INTERRUPTED
    assert out.splitlines()[-3:] == [
        f"removed: node {nodes[0]}",
        f"left: node {nodes[1]}: it may be removed: the service did not say",
        "interrupted: removed 1 of 3 in us-east-1; 2 left: run it again",
    ]
    assert err == ""
    account.service.sessions.faults.clear()
    assert main(["cleanup", "--apply", "--yes"]) == 0
    assert account.nodes == set()


# ---------------------------------------------------------------------------------------------------------- the policy


def policy() -> list[dict[str, Any]]:
    """The statements of the policy."""
    setup = Setup(Plan.make(account=ACCOUNT, features=["helper"]), ["cleanup"])
    found: list[dict[str, Any]] = documents(setup)["smssh-cleanup"]["Statement"]
    return found


def test_the_policy_allows_what_the_command_calls_and_no_more(account: Account) -> None:
    for name, kind in (("train", "Training"), ("process", "Processing"), ("score", "Transform")):
        account.job(name, kind=kind)
        account.node(name, kind=kind.lower())
    account.activation("train")
    assert main(["cleanup", "--apply", "--yes"]) == 0
    called = {name.replace("_", "") for name in account.calls}
    allowed = {action.partition(":")[2].lower() for one in policy() for action in listed(one["Action"])}
    assert called == allowed


def test_the_policy_lets_no_server_without_our_tags_be_deregistered() -> None:
    statements = [one for one in policy() if "ssm:DeregisterManagedInstance" in listed(one["Action"])]
    conditions = [one["Condition"] for one in statements]
    assert {"Null": {f"ssm:resourceTag/{tag}": "false" for tag in stale.SMSSH.tags}} in conditions
    assert {"Null": {f"ssm:resourceTag/{tag}": "false" for tag in stale.HELPER.tags}} in conditions
    for one in statements:
        assert one["Action"] == "ssm:DeregisterManagedInstance"
        assert one["Resource"] == f"arn:aws:ssm:*:{ACCOUNT}:managed-instance/mi-*"
