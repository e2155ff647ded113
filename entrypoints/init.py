"""The parent of the entry point, for `run.sh` and `smssh-hook run`: a good init that can hold and retry.

It starts the entry point in a process group of its own, forwards every signal to it, reaps whatever is left
to it, and ends with its exit status, or 128 + N when signal N ended it. CPython 3.7 and later, standard
library only: it is imported without site-packages. Until the child runs, every failure means: become the
original command.

What is not needed to start the child is imported when it runs: the job must not wait for us, and out of a zip
every module is compiled anew.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from . import boot

TYPE_CHECKING = False  # typing itself would cost the start of the job more than all else here
if TYPE_CHECKING:
    from typing import Any, Mapping, NoReturn

    from . import parent

NOT_FORWARDED = frozenset(
    ["SIGKILL", "SIGSTOP", "SIGCHLD", "SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS", "SIGABRT", "SIGTRAP", "SIGSYS"]
)
"""What cannot be forwarded, and what says that init itself is broken (as tini has it)."""
JOB_CONTROL = frozenset(["SIGTTIN", "SIGTTOU"])
"""Ignored: setting the terminal's foreground group from the background raises them."""
STOPS = frozenset([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
"""After one of these nothing is held any more: somebody wants the job to end."""
HEAD_START = 0.15
"""Seconds for the child alone, before init imports what it needs later; its output waits in the pipes."""
LEFTOVER_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL for what an attempt left behind, before the next one starts."""


def run(command: list[str], carrier: str, bundle: str | None = None) -> int:
    """Run the entry point and return its exit status.

    Args:
        command: the entry point's command line.
        carrier: which carrier calls, for the log.
        bundle: the folder of the bundle, if there is one; it goes to the front of the child's PYTHONPATH.
    """
    entry_point = None
    try:
        environ = _original_environment()
        bundle = os.path.abspath(bundle) if bundle else None
        _start_supervisor(carrier, environ)
        tee, early = _wishes(environ, bundle or boot.bundle_dir())
        entry_point = EntryPoint(command, _child_environment(environ, bundle), tee)
        return entry_point.run(early)
    except BaseException as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        boot.note(f"init failed: {type(error).__name__}: {error}")
        if entry_point is not None and entry_point.pid is not None:
            return entry_point.wait_only()
        return become(command)


def _wishes(environ: Mapping[str, str], bundle: str | None) -> tuple[bool, bool]:
    """Whether output may be wanted in a report, and whether the entry point may have to wait.

    A glance that errs on the side of yes: the settings themselves are read when the child runs, or here if it
    has to wait for them anyway.
    """
    options = b""
    if bundle:
        try:
            with open(os.path.join(bundle, "options.json"), "rb") as file:
                options = file.read()
        except OSError:
            options = b""
    hold = environ["SMSSH_HOLD"].encode() if "SMSSH_HOLD" in environ else options
    names = ("SMSSH_WAIT", "SMSSH_STRICT", "SSH_WAIT_TIME_SECONDS")
    early = b'"wait"' in options or b'"strict"' in options or any(name in environ for name in names)
    return b"failure" in hold, early or b"start" in hold


def become(command: list[str]) -> int:
    """Be the original command, as if init had never been here; 126 or 127 when it cannot be started."""
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # noqa: PERF203 - not every number is a signal
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execvpe(command[0], command, _original_environment())  # noqa: S606 - no shell is wanted
    except OSError as error:
        return _cannot_start(command, error)


def _cannot_start(command: list[str], error: OSError) -> int:
    os.write(2, f"smssh: {command[0]}: {os.strerror(error.errno or 0)}\n".encode())
    return 127 if isinstance(error, FileNotFoundError) else 126


def _original_environment() -> dict[str, str]:
    """The environment this process was started with: Python itself may have added LC_CTYPE (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [part.partition(b"=") for part in file.read().split(b"\0")]
    return {os.fsdecode(name): os.fsdecode(value) for name, equals, value in pairs if equals}


def _child_environment(environ: Mapping[str, str], bundle: str | None) -> dict[str, str]:
    child = dict(environ)
    if bundle:
        # The bundle's sitecustomize records the traceback and wraps the training toolkits.
        child["PYTHONPATH"] = os.pathsep.join(part for part in (bundle, environ.get("PYTHONPATH")) if part)
    return child


def _start_supervisor(carrier: str, environ: Mapping[str, str]) -> None:
    try:
        boot.start_supervisor(carrier, os.getpid(), environ)
    except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        boot.note(f"the supervisor was not started: {type(error).__name__}: {error}")


class EntryPoint:
    """One entry point, run as often as somebody retries it.

    Args:
        command: its command line.
        environ: its environment.
        tee: whether its last lines of output are kept.
    """

    def __init__(self, command: list[str], environ: Mapping[str, str], tee: bool) -> None:
        self.pid: int | None = None
        """The process of the attempt that runs, if one does."""
        self._command = command
        self._environ = environ
        self._stopping = False
        self._ended = 0
        self._group = 0
        self._started = 0.0
        ignored = {getattr(signal, name) for name in JOB_CONTROL}
        unforwarded = {getattr(signal, name) for name in NOT_FORWARDED} | ignored
        self._forwarded = set(signal.Signals) - unforwarded
        self._waited = self._forwarded | {signal.SIGCHLD}
        self._terminal = os.isatty(0)
        # Blocked, and taken one by one with sigtimedwait: no handler, no race with the start of the child.
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._waited)
        self._pipes = [os.pipe(), os.pipe()] if tee else []
        self._tee: parent.Tee | None = None
        self._reporter: parent.Reporter | None = None

    def run(self, early: bool) -> int:
        """Run attempts until one is not retried; the exit status of the job.

        Args:
            early: whether the settings may say that the first attempt has to wait.
        """
        refusal = self._wait_at_start() if early else None
        if refusal is not None:
            return refusal
        while True:
            if self._stopping:
                return 128 + signal.SIGTERM
            try:
                self._start()
            except OSError as error:
                return _cannot_start(self._command, error)
            if self._reporter is None:
                # The supervisor and the child are starting: on two cores, a third would only slow them down.
                self._handle(HEAD_START)
            reporter = self._prepare()
            told = self._tell(reporter)
            while self.pid is not None:
                self._handle(1.0 if told else 0.05)
                told = told or self._tell(reporter)
            status = self._ended
            decision = self._decide(reporter, status)
            if decision["action"] == "retry":
                self._end_leftovers()
                if self._tee is not None:
                    self._tee.forget()
                continue
            chosen = decision.get("exit_code")
            self._say_goodbye()
            return status if chosen is None else chosen

    def wait_only(self) -> int:
        """Wait for the child and nothing else; its exit status. For when the rest of init has failed."""
        import select

        readers = (
            {} if self._tee is not None else {reader: 1 + n for n, (reader, _) in enumerate(self._pipes)}
        )
        while self.pid is not None or select.select(list(readers), [], [], 0)[0]:
            for reader in select.select(list(readers), [], [], 0.05)[0]:
                os.write(readers[reader], os.read(reader, 65536))
            self._handle(0.05)
        return self._ended

    def _prepare(self) -> parent.Reporter:
        """What is needed once the child runs: the settings, the way to the supervisor, the last lines."""
        if self._reporter is None:
            from . import parent

            if self._pipes:
                self._tee = parent.Tee(pipes=self._pipes)
            self._reporter = parent.Reporter(
                "init",
                self._command,
                parent.job_settings(),
                parent.say_on_stdout,
                interrupted=self._interrupted,
            )
        return self._reporter

    def _wait_at_start(self) -> int | None:
        """Wait or hold before the first attempt; an exit status where SMSSH_STRICT forbids to start it."""
        from ..errors import SmsshError

        try:
            self._prepare().at_start()
        except SmsshError as error:
            os.write(2, f"smssh: {error}\n".encode())
            return int(error.status)
        return None

    def _tell(self, reporter: parent.Reporter) -> bool:
        """Say that the attempt runs, once the supervisor listens; True when there is no need to try again."""
        from . import parent

        run = boot.run_dir()
        if run is None or not parent.supervisor_alive(run):
            return True
        if not os.path.exists(os.path.join(run, "socket")):
            return False
        reporter.before(started=self._started)
        return True

    def _decide(self, reporter: parent.Reporter, status: int) -> dict[str, Any]:
        if self._tee is not None:
            self._tee.drain()
        if status == 0:
            return reporter.succeeded(0)
        tail = None if self._tee is None else self._tee.tail()
        return reporter.failed(status, None, tail)

    def _say_goodbye(self) -> None:
        """Let the supervisor deregister; a second SIGTERM is in no hurry here, the time is bounded."""
        from . import parent

        try:
            parent.end()
        except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
            boot.note(f"end failed: {error}")
        self._reap()

    # ------------------------------------------------------------------------------ processes and signals

    def _start(self) -> None:
        self._started = time.time()
        pid = os.fork()
        if pid == 0:
            self._become_child()
        self.pid = pid
        self._take_terminal(pid)

    def _become_child(self) -> NoReturn:
        """In the fork: a group of its own, default signals, then the command. Never returns."""
        status = 126
        try:
            os.setpgid(0, 0)
            self._take_terminal(os.getpid())
            for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            for handle, (_, writer) in enumerate(self._pipes, 1):
                os.dup2(writer, handle)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            os.execvpe(self._command[0], self._command, self._environ)  # noqa: S606 - no shell is wanted
        except OSError as error:
            status = _cannot_start(self._command, error)
        finally:
            os._exit(status)

    def _take_terminal(self, group: int) -> None:
        if self._terminal:
            try:
                os.tcsetpgrp(0, group)
            except OSError:
                self._terminal = False

    def _handle(self, seconds: float) -> None:
        """Take one signal, if one comes within `seconds`: forward it, or reap what has ended."""
        taken = signal.sigtimedwait(self._waited, seconds)
        # Reaped in any case: SIGCHLD says that at least one process has ended, and one may be merged with
        # another.
        if taken is not None and taken.si_signo != signal.SIGCHLD:
            number = signal.Signals(taken.si_signo) if taken.si_signo in STOPS else taken.si_signo
            self._stopping = self._stopping or number in STOPS
            if self.pid is not None:
                try:  # noqa: SIM105 - contextlib would only be imported for this
                    os.kill(self.pid, number)
                except ProcessLookupError:
                    pass
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.pid = None
                self._ended = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self._group = pid

    def _interrupted(self) -> bool:
        """Polled during a hold: handle what has come, and say whether the job is being stopped."""
        self._handle(0)
        return self._stopping

    def _end_leftovers(self) -> None:
        """End what the last attempt left in its process group: it may hold ports, files or a GPU."""
        deadline = time.monotonic() + LEFTOVER_GRACE
        for number in (signal.SIGTERM, signal.SIGKILL):
            while True:
                try:
                    os.killpg(self._group, number)
                except OSError:
                    return
                self._handle(0.05)
                if number == signal.SIGKILL or time.monotonic() >= deadline:
                    break


def main(arguments: list[str]) -> int:
    """`smssh-hook run -- CMD...`: init where the switch is on, nothing at all where it is off."""
    if os.environ.get(boot.ENABLE) != "1":
        return become(arguments)
    return run(arguments, "smssh-hook", boot.bundle_dir())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
