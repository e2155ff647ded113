"""Session documents and a stream's endpoint of one's own, as accounts with closed networks have them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli import main
from smssh_plugin.errors import SmsshError
from tests.aws.peers import Api

from .support import EchoServer, proxy, read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import World

TARGET = "mi-0123456789abcdef0"
STREAM = (
    "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe&cell-number=AA=="
)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """A service that knows no document."""
    made = Api()
    for name, value in {
        "AWS_ENDPOINT_URL": made.url,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "SMSSH_HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    made.answers = [(400, {"__type": "InvalidDocument", "message": "no such document"})] * 2
    yield made
    made.close()


def asked(api: Api) -> list[str | None]:
    return [body.get("DocumentName") for target, body in api.asked if target.endswith("StartSession")]


@pytest.mark.parametrize("how", ["option", "variable", "profile"])
def test_ssh_by_a_document_of_ones_own(
    how: str, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["proxy", "job.training.sagemaker", "--target", TARGET, "--port", "22"]
    if how == "option":
        words += ["--document", "Corp-SSH"]
        monkeypatch.setenv("SMSSH_SSH_DOCUMENT", "Not-This")
    elif how == "variable":
        monkeypatch.setenv("SMSSH_SSH_DOCUMENT", "Corp-SSH")
        (tmp_path / "config").write_text("[default]\nsmssh_ssh_document = Not-This\n")
    else:
        (tmp_path / "config").write_text("[default]\nsmssh_ssh_document = Corp-SSH\n")
    assert main(words) == 4
    assert asked(api) == ["Corp-SSH", "AWS-StartPortForwardingSession"]


@pytest.mark.parametrize(
    ("command", "use", "amazons"),
    [
        (["shell", "{}"], "shell", None),
        (["shell", "{}", "--", "ls"], "command", "AWS-StartInteractiveCommand"),
        (["forward", "{}", "0:80"], "port", "AWS-StartPortForwardingSession"),
        (["forward", "{}", "0:db:80"], "remote_port", "AWS-StartPortForwardingSessionToRemoteHost"),
    ],
)
def test_the_others(
    command: list[str], use: str, amazons: str | None, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    import smssh_plugin.client.lookup as lookup

    class Found:
        target = TARGET

    monkeypatch.setattr(lookup, "resolve", lambda *_, **__: Found)
    words = [word.format("job.training.sagemaker") for word in command]
    assert main(words) == 4
    monkeypatch.setenv(f"SMSSH_{use.upper()}_DOCUMENT", "Corp")
    assert main(words) == 4
    api.answers = [(400, {"__type": "InvalidDocument", "message": "no such document"})]
    assert main([*words[:2], "--document", "Named", *words[2:]]) == 4
    assert asked(api) == [amazons, "Corp", "Named"]


def test_the_stream_goes_to_the_endpoint_that_is_configured_for_it(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AwsSession().stream_url(STREAM) == STREAM  # AWS_ENDPOINT_URL is not meant
    own = "https://vpce-1.ssmmessages.eu-west-1.vpce.amazonaws.com"
    moved = STREAM.replace("wss://ssmmessages.eu-west-1.amazonaws.com", own.replace("https", "wss"))
    (tmp_path / "config").write_text(
        f"[default]\nservices = closed\n[services closed]\nssmmessages =\n  endpoint_url = {own}\n"
    )
    assert AwsSession().stream_url(STREAM) == moved
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSMMESSAGES", "http://127.0.0.1:8000/")
    assert AwsSession().stream_url(STREAM).startswith("ws://127.0.0.1:8000/v1/data-channel/s-1?role=")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert AwsSession().stream_url(STREAM) == STREAM
    monkeypatch.delenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSMMESSAGES", "vpce-1.ssmmessages")
    with pytest.raises(SmsshError, match=r"invalid endpoint 'vpce-1\.ssmmessages'"):
        AwsSession().stream_url(STREAM)


@pytest.mark.e2e
def test_a_session_by_way_of_it(world: World, echo: EchoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.stack.service, "base_url", "http://ssmmessages.invalid")

    environment = {**world.stack.environment, "AWS_ENDPOINT_URL_SSMMESSAGES": world.stack.url}
    process = proxy(SimpleNamespace(environment=environment), world.node, echo.port)  # type: ignore[arg-type]
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"there and back")
    assert read_exactly(process, 14) == b"there and back", process.stderr.read()
    process.stdin.close()
    assert process.wait(15) == 0
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
