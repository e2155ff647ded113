"""What the agent's log says of a role that may not: only what sessions need is held against it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from smssh_plugin.hooks import _agent

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
    monkeypatch.setattr(_agent, "agent_environment", lambda *_: {})
    said = []
    made = Context(load({}), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")
    monkeypatch.setattr(made, "say", said.append)
    installed = SimpleNamespace(program=program, folder=tmp_path, log=tmp_path / "none.log")
    agent = _agent.Running(made, installed)
    # It has said what it has to say before it is given up, however busy the machine is.
    monkeypatch.setattr(_agent.time, "monotonic", lambda: 1000.0 if agent._said().count("\n") else 0.0)
    return agent, said


@pytest.mark.parametrize("action", _agent.NODE_ACTIONS)
def test_what_sessions_need_is_named_with_all_the_rest(tmp_path, monkeypatch, action):
    agent, _ = running(
        tmp_path, monkeypatch, action, "ssm:ListInstanceAssociations", "ec2messages:GetMessages"
    )
    try:
        with pytest.raises(SmsshError, match=f"node's role may not {action}") as caught:
            agent.start()
    finally:
        agent.stop(0.5)
    assert all(each in caught.value.hint for each in _agent.NODE_ACTIONS)


def test_what_they_do_not_need_is_not_blamed(tmp_path, monkeypatch):
    agent, said = running(tmp_path, monkeypatch, "ssm:ListInstanceAssociations", "ec2messages:GetMessages")
    try:
        agent.start()
    finally:
        agent.stop(0.5)
    assert "not connected to Session Manager" in said[0]
    assert "ListInstanceAssociations" not in said[0]
