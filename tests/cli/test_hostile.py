"""Names, tags, messages and output that were made to harm those who look at them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import main
from tests.aws.peers import Api
from tests.client.nodes import add_node, use
from tests.client.test_login import ADDRESS, World, world  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.service_harness import Service

CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07"
FORGED = "x\x1b[2K\r\nerror: forged\n##[error]forged\n::error::forged\u202e\x9b2K"
HOSTILE = CLIPBOARD + FORGED
RAW = ("\x1b", "\x07", "\x9b", "\u202e", "\r", "##[", "\nerror: forged", "\n::error")


def assert_safe(shown: str) -> None:
    assert "forged" in shown
    for each in RAW:
        assert each not in shown, repr(shown)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A service whose every answer is an error with such a message."""
    api = Api()
    use_api = {"AWS_ENDPOINT_URL": api.url, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIA"}
    for name, value in {**use_api, "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    yield api
    api.close()


@pytest.mark.parametrize("code", ["ValidationException", "AccessDeniedException", "ExpiredTokenException"])
@pytest.mark.parametrize(
    "words",
    [["list"], ["debug", "p"], ["connect", "a.training.sagemaker"], ["proxy", "a.training.sagemaker"]],
)
def test_what_aws_answers(
    refusing: Api, code: str, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    refusing.answers = [(400, {"__type": code, "message": HOSTILE})] * 4
    assert main(words) > 0
    shown = "\n" + capfd.readouterr().err
    if "there is no pipeline" not in shown:
        assert_safe(shown)


def test_what_tags_say(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(service, monkeypatch)
    node = service.sessions.nodes.nodes[add_node(service, "My-Job")]
    node.tags.update(SMSSHStep=HOSTILE, SMSSHState=HOSTILE, SSHOwner=HOSTILE)
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2
    assert_safe(shown)
    assert main(["list", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["hosts"][0]["step"] == HOSTILE
    assert shown.isascii()
    assert "\x1b" not in shown


def hook(world: World, script: str) -> None:  # noqa: F811
    """What `smssh-hook` is in the container."""
    program = world.server.folder / "bin" / "smssh-hook"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.e2e
@pytest.mark.parametrize("command", ["status", "release", "retry", "hold"])
def test_what_the_container_answers(world: World, command: str) -> None:  # noqa: F811
    answer = world.server.folder / "answer"
    answer.write_text(HOSTILE + "\nlast")
    hook(world, f"cat {answer}; cat {answer} >&2; exit 3")
    done = world.smssh(command, ADDRESS)
    assert done.returncode == 3
    for shown in (done.stdout, done.stderr):
        assert shown.endswith("last")
        for each in set(RAW) - {"\nerror: forged"}:  # lines are what was asked for
            assert each not in shown
    # To ssh, and to a command of one's own, bytes are bytes.
    assert world.smssh("connect", ADDRESS, "--", f"cat {answer}").stdout == answer.read_text()
    assert world.ssh(f"cat {answer}").stdout == answer.read_text()


@pytest.mark.e2e
def test_json_of_the_container_is_written_anew(world: World) -> None:  # noqa: F811
    answer = world.server.folder / "answer"
    answer.write_text(json.dumps({"state": "held\u202e\x9b ##[error]"}, ensure_ascii=False))
    hook(world, f"cat {answer}")
    shown = world.smssh("status", ADDRESS, "--json").stdout
    assert json.loads(shown) == {"state": "held\u202e\x9b ##[error]"}
    assert shown.isascii()
    answer.write_text(HOSTILE)
    done = world.smssh("status", ADDRESS, "--json")
    assert "\x1b" not in done.stdout


@pytest.mark.e2e
def test_what_is_to_be_typed_can_be_typed_here(world: World) -> None:  # noqa: F811
    hook(
        world,
        """echo "smssh-hook: not held\n  hint: \\`smssh-hook hold\\`, then smssh-hook extend 30m" >&2; exit 1""",
    )
    done = world.smssh("retry", ADDRESS)
    assert (
        done.stderr == f"error: not held\n  hint: `smssh hold {ADDRESS}`, then smssh extend {ADDRESS} 30m\n"
    )
