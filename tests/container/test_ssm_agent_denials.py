"""What the agent's log says of a role that may not: only what sessions need is held against it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from smssh_plugin.container import aws_calls, ssm_agent
from smssh_plugin.errors import SmsshError
from smssh_plugin.hookspecs import Context, Job
from smssh_plugin.settings import load

DENIED = (
    "2026-11-30 10:00:00 ERROR error when calling AWS APIs. error details - AccessDeniedException: User: "
    "arn:aws:sts::123456789012:assumed-role/Nodes/mi-0 is not authorized to perform: {} on resource: *"
)


def running(tmp_path, monkeypatch, *actions):
    """An agent that says that it may not do these, and does not get through."""
    program = tmp_path / "amazon-ssm-agent"
    lines = "\n".join(DENIED.format(action) for action in actions)
    program.write_text(f"#!{sys.executable}\nimport time\nprint({lines!r}, flush=True)\ntime.sleep(1000)\n")
    program.chmod(0o755)
    monkeypatch.setattr(ssm_agent, "agent_environment", lambda *_: {})
    said = []
    made = Context(load({}), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")
    monkeypatch.setattr(made, "say", said.append)
    installed = SimpleNamespace(program=program, folder=tmp_path, log=tmp_path / "none.log")
    agent = ssm_agent.Running(made, installed)
    # It has said what it has to say before it is given up, however busy the machine is. The first look sets the
    # deadline.
    looks = iter([0.0])
    monkeypatch.setattr(
        ssm_agent.time, "monotonic", lambda: next(looks, 1000.0 if agent._said().count("\n") else 0.0)
    )
    return agent, said


@pytest.mark.parametrize("action", ssm_agent.NODE_ACTIONS)
def test_what_sessions_need_is_named_with_all_the_rest(tmp_path, monkeypatch, action) -> None:
    agent, _ = running(
        tmp_path, monkeypatch, action, "ssm:ListInstanceAssociations", "ec2messages:GetMessages"
    )
    try:
        with pytest.raises(SmsshError, match=f"node's role may not {action}") as caught:
            agent.start()
    finally:
        agent.stop(0.5)
    assert all(each in caught.value.hint for each in ssm_agent.NODE_ACTIONS)


def test_what_they_do_not_need_is_not_blamed(tmp_path, monkeypatch) -> None:
    agent, said = running(tmp_path, monkeypatch, "ssm:ListInstanceAssociations", "ec2messages:GetMessages")
    try:
        agent.start()
    finally:
        agent.stop(0.5)
    assert "not connected to Session Manager" in said[0]
    assert "ListInstanceAssociations" not in said[0]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("because no identity-based policy allows it", "in the policy of the job's execution role"),
        ("", "in the policy of the job's execution role"),
        ("because no permissions boundary allows it", "in the permissions boundary as well"),
        ("because no service control policy allows it", "in the service control policy as well"),
        ("because no VPC endpoint policy allows it", "in the VPC endpoint policy as well"),
        (
            "with an explicit deny in a service control policy",
            "denies it explicitly (service control policy)",
        ),
        ("with an explicit deny in an identity-based policy", "denies it explicitly (identity-based policy)"),
    ],
)
def test_a_permission_is_missed_where_it_is_missing(said, hint) -> None:
    message = f"User: Job is not authorized to perform: ssm:CreateActivation on resource: * {said}"
    refused = aws_calls.Refused("CreateActivation", "AccessDeniedException", message, 400, "")
    found = aws_calls._explain_answer(refused, "ssm")
    assert hint in found.hint
    assert ("allow ssm:CreateActivation" in found.hint) is ("explicit" not in said)


@pytest.mark.parametrize("own", [True, False])
def test_variables_that_are_not_there_are_not_blamed(monkeypatch, own) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    if own:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    refused = aws_calls.Refused("CreateActivation", "ExpiredTokenException", "expired", 400, "")
    assert ("take the AWS_* variables out" in aws_calls._explain_answer(refused, "ssm").hint) is own
