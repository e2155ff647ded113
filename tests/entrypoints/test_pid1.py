"""Entry points that have to be process 1 are it, with the supervisor beside them."""

import os

import pytest

from smssh_plugin.entrypoints import pid1
from tests.waiting import LIMIT

from .test_launchers import child_of

INSISTS = "[ $$ = 1 ] || exit 100\n"
STAYS = "echo pid=$$; while [ ! -e go ]; do sleep 0.05; done; exit 7\n"


@pytest.mark.parametrize("form", ["text", "script", "program", "name"])
@pytest.mark.parametrize("hold", ["", "failure"])
def test_it_is_process_1_and_can_be_entered(container, first, form, hold) -> None:
    text = INSISTS + STAYS
    if form == "text":
        command = ["/bin/sh", "-c", text]
    elif form == "script":
        command = ["/bin/sh", container.script(text, name="start.sh")]
    else:
        # Of a name that tells nothing it is the text that does, and the other way round.
        path = container.script("#!/bin/sh\n" + (text if form == "program" else STAYS), name="init")
        if form == "program":
            path = path.rename(path.with_name("entry"))
        path.chmod(0o755)
        command = [path]
    variables = {"SMSSH_HOLD": hold} if hold else {}
    process = container.start(*first, "/bin/sh", container.bundle / "run.sh", *command, **variables)
    status = container.wait_for("ready")
    assert status["ssh"]["port"]
    assert "pid=1\n" in container.output()
    assert container.ssh(status, "echo in").stdout == "in\n"
    assert ("cannot be held" in container.output()) == bool(hold)
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    container.assert_quiet()


def test_such_a_script_ends_below_a_parent(container, first) -> None:
    """Without the guard: `is_required` knows no other spelling of the question."""
    text = "me=$$; " + INSISTS.replace("$$", "$me")
    process = container.start(*first, "/bin/sh", container.bundle / "run.sh", "/bin/sh", "-c", text)
    assert process.wait(LIMIT) == 100


def test_signals_are_those_of_process_1(container, first) -> None:
    """It gets what it handles, from the kernel itself: nobody of ours is in between."""
    text = INSISTS + "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"
    process = container.start(*first, "/bin/sh", container.bundle / "run.sh", "/bin/sh", "-c", text)
    container.wait_for("ready")
    os.kill(child_of(process), 15)
    assert process.wait(LIMIT) == 9


def test_it_can_be_waited_for(container, first) -> None:
    command = ("/bin/sh", "-c", INSISTS + "exit 5")
    process = container.start(*first, "/bin/sh", container.bundle / "run.sh", *command, SMSSH_HOLD="start")
    container.wait_for("held")
    container.hook("release")
    assert process.wait(LIMIT) == 5


def test_all_others_have_a_parent(container, first) -> None:
    text = "echo pid=$$; exit 3"
    process = container.start(*first, "/bin/sh", container.bundle / "run.sh", "/bin/sh", "-c", text)
    assert process.wait(LIMIT) == 3
    assert "pid=1\n" not in container.output()


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("[ $$ = 1 ] || exit 100", True),
        ('if [ "$$" -ne 1 ]; then exit 1; fi', True),
        ("if test $$ -eq 1; then :; fi", True),
        ("[[ $$ == 1 ]] && x", True),
        ("[ 1 = $$ ]", True),
        ('[ "1" != "$$" ]', True),
        ("assert os.getpid() == 1", True),
        ("if (getpid() != 1) exit(1);", True),
        ("[[ $BASHPID -ne 1 ]]", True),
        ("kill -TERM $$", False),
        ("echo $$ > pid; [ $# = 1 ]", False),
        ("[ $$ = 10 ]", False),
        ("[ 21 = $$ ]", False),
        ("log.$$.1", False),
        ("x = os.getpid(); y == 1", False),
    ],
)
def test_what_asks_for_process_1(text, asks) -> None:
    assert pid1.is_required(["/bin/sh", "-c", text]) == asks


def test_programs_are_not_read_as_text(tmp_path) -> None:
    program = tmp_path / "entry"
    program.write_bytes(b"\x7fELF\0" + INSISTS.encode())
    assert not pid1.is_required([str(program)])
    assert not pid1.is_required(["python", str(tmp_path)])
