"""Every message of the supervisor's socket is in its protocol, and everything in the protocol is sent."""

import ast
import contextlib
import io
import re
import threading
import types
import typing
from pathlib import Path

import pytest

from smssh_plugin.entrypoints import boot, idle, smssh_hook, supervisor_client
from smssh_plugin.settings import Settings
from smssh_plugin.supervisor import protocol
from smssh_plugin.supervisor.clock import Clock
from smssh_plugin.supervisor.socket import Service
from tests.waiting import LIMIT, until

from .simulated import EPOCH, Simulated

ROOMS = ("smssh_plugin", "entrypoints", "hooks")


def load_types() -> types.ModuleType:
    """The protocol as a type checker reads it: at run time it has no types."""
    source = Path(protocol.__file__).read_text(encoding="utf-8")
    assert "\nTYPE_CHECKING = False" in source
    module = types.ModuleType("protocol_types")
    exec(source.replace("\nTYPE_CHECKING = False", "\nTYPE_CHECKING = True"), module.__dict__)
    return module


TYPES = load_types()
REQUESTS = {
    typing.get_type_hints(each, vars(TYPES))["op"].__args__[0]: each for each in TYPES.Request.__args__
}
ANSWERS = {
    op: getattr(TYPES, re.search(r"Answer: `(\w+)`", each.__doc__).group(1)) for op, each in REQUESTS.items()
}


def fits(value: object, kind: object) -> bool:
    """Whether a value is what a type of the protocol says, through and through."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(fits(each, arguments[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(each, arguments[1]) for each in value.values())
    if typing.is_typeddict(kind):
        fields = typing.get_type_hints(kind, vars(TYPES))
        return (
            isinstance(value, dict)
            and value.keys() == fields.keys()
            and all(fits(value[name], each) for name, each in fields.items())
        )
    if kind is float:
        return isinstance(value, (int, float))
    return type(value) is (type(None) if kind is None else kind)


@pytest.fixture
def wire(tmp_path, monkeypatch):
    """A supervisor that is served, and what goes over its socket both ways."""
    sent = []
    encode = protocol.encode

    def record(message):
        sent.append(message)
        return encode(message)

    monkeypatch.setattr(protocol, "encode", record)
    monkeypatch.setenv(boot.RUN_DIR, str(tmp_path))
    monkeypatch.setattr(supervisor_client, "supervisor_alive", lambda _run: True)
    tmp_path.chmod(0o700)
    simulated = Simulated(tmp_path, clock=Clock(), SMSSH_HOLD="start,failure,end")
    service = Service(tmp_path, simulated.operations)
    service.start()
    simulated.operations.started()
    yield simulated, sent
    simulated.operations.finish(10)
    service.close()


def command(*words: str) -> int:
    """Run smssh-hook, and forget what it prints."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        return smssh_hook.main(list(words))


def decide(simulated, request, words) -> dict:
    """What is decided on a request of the entry point's, when a person types these words while it is held."""
    decided = []
    thread = threading.Thread(target=lambda: decided.append(request()), daemon=True)
    thread.start()
    until(lambda: simulated.operations.holds.hold, "the hold")
    assert command(*words) == 0
    thread.join(LIMIT)
    return decided[0]


def test_all_that_is_sent_is_in_the_protocol_and_the_reverse(wire, monkeypatch) -> None:
    simulated, sent = wire
    answered = []
    answer_request = simulated.operations.answer

    def answer(request, requester):
        answer = answer_request(request, requester)
        answered.append((request["op"], answer))
        return answer

    monkeypatch.setattr(simulated.operations, "answer", answer)
    monkeypatch.setattr("smssh_plugin.supervisor.socket.BEAT_SECONDS", 0.01)
    said = []
    settings = Settings(hold=("start", "failure", "end"), strict=True)
    reporter = supervisor_client.Reporter("init", ["python", "x.py"], settings, said.append, entry="")
    decide(simulated, reporter.at_start, ["release"])
    reporter.before({"A": "b"}, EPOCH)
    assert command("hold") == 0
    decision = decide(
        simulated, lambda: reporter.failed(3, "the error", ["last line"]), ["retry", "--no-wait", "--json"]
    )
    assert decision["action"] == "retry"
    reporter.before()
    for words in (
        ["status"],
        ["status", "--json"],
        ["report"],
        ["logged-in"],
        ["changes"],
        ["extend", "30m"],
    ):
        assert command(*words) == (1 if words[0] == "extend" else 0)  # nothing is held now
    thread = threading.Thread(target=lambda: reporter.succeeded(0), daemon=True)
    thread.start()
    until(lambda: simulated.operations.holds.hold, "the hold")
    simulated.operations.holds.say("a line for the job's log")
    assert command("extend", "30m") == 0
    until(lambda: {"beat": True} in sent, "a beat")
    assert command("note", "a" * protocol.NOTE_LIMIT) == 0
    assert command("note", "a" * (protocol.NOTE_LIMIT + 1)) == 2
    assert command("release") == 0
    thread.join(LIMIT)
    idle._connected()
    threading.Timer(0.0, simulated.operations.lifecycle.stopped.set).start()
    supervisor_client.end()
    assert said == ["a line for the job's log"]
    asked = [message for message in sent if "op" in message]
    for message in asked:
        assert fits(message, REQUESTS[message["op"]]), message
    assert {message["op"] for message in asked} == set(REQUESTS), "each request was sent"
    told = [message for message in sent if "op" not in message]
    for message in told:
        assert fits(message, TYPES.Answer) or fits(message, TYPES.Say) or fits(message, TYPES.Beat), message
    for kind in [*ANSWERS.values(), TYPES.Error, TYPES.Say, TYPES.Beat]:
        assert any(fits(message, kind) for message in told), kind
    for op, answer in answered:
        assert fits(answer, ANSWERS[op]), op


def test_each_command_of_a_person_is_tried_above() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for action in smssh_hook.parser()._subparsers._group_actions:
        for name in set(action.choices) - {"run", "placeholder"}:
            assert f'"{name}"' in source


def literals():
    """Each request that is written down in the package: file, line, and the keys and values that are constants."""
    root = Path(boot.__file__).resolve().parents[1]
    for room in ROOMS:
        for path in (root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Dict):
                    keys = [each.value if isinstance(each, ast.Constant) else None for each in node.keys]
                    if "op" in keys:
                        value = node.values[keys.index("op")]
                        yield f"{path.name}:{node.lineno}", keys, getattr(value, "value", None)


def test_a_request_is_written_down_with_all_its_fields() -> None:
    found = list(literals())
    for where, keys, op in found:
        assert op in REQUESTS, where
        assert set(keys) == set(typing.get_type_hints(REQUESTS[op], vars(TYPES))), where
    assert {op for _, _, op in found} == set(REQUESTS)
