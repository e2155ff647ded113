"""Third-party hooks that raise, hang, fork, exit or kill: the job ends as without them, and mostly they are
just skipped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from smssh_plugin import hookimpl, plugins
from smssh_plugin.hookspecs import Context, Failure, Job
from smssh_plugin.settings import Settings
from tests.waiting import LIMIT, until

from .images import add_plugin, image
from .processes import Ours

FAULTS = {
    "raises": "raise RuntimeError('a bug of theirs')",
    "exits": "sys.exit(3)",
    "dies": "os._exit(3)",
    "kills itself": "os.kill(os.getpid(), 9)",
    "forks": "os.fork()",
    "hangs": "time.sleep(3600)",
}
SURVIVED = ("raises", "exits", "forks", "hangs")
"""The others take the supervisor along."""
STARTS = ("smssh_configure", "smssh_authorized_keys", "smssh_start_server", "smssh_ready")
ENDS = ("smssh_after_entry_point", "smssh_notify", "smssh_stop")


def faulty(folder, hook, fault):
    """A plugin with one hook that says that it was called, and then does what it shouldn't."""
    impl = f"@hookimpl(tryfirst=True)\ndef {hook}():\n    reached()\n    {FAULTS[fault]}\n"
    if hook == "import":
        impl = f"reached()\n{FAULTS[fault]}\n"
    return textwrap.dedent(
        f"""
        import os, sys, time
        from smssh_plugin import hookimpl
        def reached():
            open({str(folder / "reached")!r}, "a").close()
        """
    ) + textwrap.dedent(impl)


@pytest.fixture
def start(container):
    """Starts a wrapped job in an image with a faulty plugin."""

    def begin(hook, fault, *command, **environ):
        made = image(container.folder)
        add_plugin(made, faulty(container.folder, hook, fault))
        return container.wrap(
            *command,
            **{"PATH": f"{made}/bin:{container.environ['PATH']}", "SMSSH_SSH_SERVER": "auto", **environ},
        )

    return begin


def reached(container):
    return (container.folder / "reached").exists()


WAITING = "while [ ! -e go ]; do sleep 0.05; done; echo ran; exit 7"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", ["import", "smssh_start_server"])
def test_at_the_start(container, start, hook, fault) -> None:
    process = start(hook, fault, "sh", "-c", WAITING)
    ours = Ours(container)
    until(lambda: reached(container), what=lambda: f"the hook; {container.log()}")
    ours.look()
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    assert "ran" in container.output().splitlines()
    until(lambda: not ours.left(), what=lambda: f"the end of {ours.left()}")


@pytest.mark.parametrize("fault", ["dies", "hangs", "forks"])
@pytest.mark.parametrize("hook", ENDS)
def test_at_the_end(container, start, hook, fault) -> None:
    process = start(hook, fault, "sh", "-c", WAITING)
    ours = Ours(container)
    if hook == "smssh_notify":
        until(
            lambda: ours.look() is not None and reached(container),
            what=lambda: f"the hook; {container.log()}",
        )
    else:
        container.wait_for("running")
        ours.look()
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    assert reached(container)
    until(lambda: not ours.left(), what=lambda: f"the end of {ours.left()}")


@pytest.mark.parametrize("fault", ["raises", "exits", "forks"])
@pytest.mark.parametrize("hook", ["smssh_configure", "smssh_before_entry_point", "smssh_collect_report"])
def test_a_hook_that_can_be_skipped_is_skipped(container, start, hook, fault) -> None:
    """A login and a hold are had all the same, and a retry."""
    waiting = WAITING.replace("exit 7", "[ -e fixed ]")
    process = start(hook, fault, "sh", "-c", waiting, SMSSH_HOLD="failure")
    container.wait_for("running")
    container.script("", name="go")
    status = container.wait_for("held")
    assert reached(container)
    assert status["ssh"]["port"]
    assert status["hooks"].count("faulty") == 1
    container.script("", name="fixed")
    assert json.loads(container.hook("retry", "--json").stdout)["exit_code"] == 0
    assert process.wait(LIMIT) == 0
    assert container.output().count("ran\n") == 2
    container.assert_quiet()


def test_a_hook_that_dies_in_a_hold_ends_it(container, start) -> None:
    process = start("smssh_collect_report", "dies", "sh", "-c", "exit 7", SMSSH_HOLD="failure")
    assert process.wait(LIMIT) == 7
    assert reached(container)
    container.assert_quiet()


def test_a_hook_that_hangs_does_not_keep_a_failed_job(container, start) -> None:
    """`smssh_hold` is asked at every failure, whether a hold was wanted or not."""
    began = time.monotonic()
    process = start("smssh_hold", "hangs", "sh", "-c", WAITING)
    container.wait_for("running")
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    assert reached(container)
    assert plugins.LIMITS["smssh_hold"] <= time.monotonic() - began
    container.assert_quiet()


def test_a_hook_that_hangs_does_not_delay_the_entry_point(container, start) -> None:
    """The toolkit tells of an attempt before it starts the script; the hooks then run beside it."""
    began = time.monotonic()
    process = start("smssh_before_entry_point", "hangs", "sh", "-c", WAITING)
    container.wait_for("running")
    until(lambda: reached(container))
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    # What comes after the attempt waits for what belongs before it, within its limit.
    assert time.monotonic() - began < plugins.LIMITS["smssh_before_entry_point"] + 30
    container.assert_quiet()


def test_a_supervisor_that_stands_still_does_not_keep_a_failed_job(container) -> None:
    """Not dead, and its socket open: as one whose interpreter a hook's C code has locked up for good."""
    process = container.wrap("sh", "-c", WAITING)
    container.wait_for("running")
    (pid,) = [pid for pid, command in container.strays() if "supervisor.main" in command]
    os.kill(pid, signal.SIGSTOP)
    try:
        container.script("", name="go")
        assert process.wait(LIMIT) == 7
        assert "nothing was heard" in (container.run_dir / "boot.log").read_text()
    finally:
        os.kill(pid, signal.SIGCONT)
    container.assert_quiet()


# ------------------------------------------------------------------------------- the guard alone, and without


@pytest.fixture
def context(tmp_path):
    return Context(Settings(), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")


def made_of(function):
    class Theirs:
        smssh_hold = staticmethod(hookimpl(function))

    return plugins.Plugins([("theirs", Theirs())], entry_points=False)


def test_a_hang_costs_its_limit_and_no_more(context, monkeypatch, caplog) -> None:
    monkeypatch.setitem(plugins.LIMITS, "smssh_hold", 0.2)
    forever = threading.Event()
    assert made_of(lambda: forever.wait()).hold(context, "end", 0) is False  # noqa: PLW0108 - hookimpl marks a function
    forever.set()
    assert "smssh_hold of plugin theirs failed and is skipped: TimeoutError" in caplog.text


def test_every_container_side_hook_that_somebody_waits_for_has_a_limit() -> None:
    """The client's hooks run for a person at a terminal; server and transport bound their own start."""
    from smssh_plugin import hookspecs

    unbounded = {"smssh_start_server", "smssh_start_transport"}
    unbounded |= {"smssh_transform_request", "smssh_register_commands", "smssh_probes", "smssh_checks"}
    every = {name for name in vars(hookspecs) if name.startswith("smssh_")}
    assert every - unbounded == set(plugins.LIMITS)


FORKING = """
import os, sys
from smssh_plugin import hookimpl, plugins
class Theirs:
    @staticmethod
    @hookimpl
    def smssh_hold():
        os.fork()
        return True
class Unguarded:
    @staticmethod
    def hold(context, point, exit_code):
        return Theirs.smssh_hold()
manager = Unguarded if sys.argv[1] == "unguarded" else plugins.Plugins([("theirs", Theirs)], entry_points=False)
manager.hold(None, "end", 0)
os.write(1, b"decided\\n")
"""


@pytest.mark.parametrize(("guard", "answers"), [("unguarded", 2), ("guarded", 1)])
def test_a_fork_that_comes_back_is_no_second_supervisor(guard, answers) -> None:
    """Without the guard both processes go on with the supervisor's work, and both answer."""
    done = subprocess.run([sys.executable, "-c", FORKING, guard], capture_output=True, text=True, check=True)
    assert done.stdout.count("decided") == answers


def test_failures_of_all_kinds_are_skipped(context, caplog) -> None:
    for error in (SystemExit(3), RuntimeError("bug"), MemoryError()):

        def broken(error=error):
            raise error

        assert made_of(broken).hold(context, "end", 0) is False
        assert type(error).__name__ in caplog.text
    assert made_of(lambda: True).collect_report(context, Failure(1, (), os.EX_SOFTWARE)) == {}
