"""Init: runs the entry point as its child, for `run.sh` and `smssh-hook run`, and can hold and retry it.

By hand: tini and its like are programs that an image need not have, and neither hold nor retry.

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
    from typing import Mapping, NoReturn

    from ..supervisor import protocol
    from . import supervisor_client

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
STOP_GRACE = 90.0
"""Seconds from a stop to the supervisor's end: the service kills the container 120 s after SIGTERM."""
SIGTIMEDWAIT = {"x86_64": "128", "aarch64": "137"}
"""The number of rt_sigtimedwait (asm/unistd.h), as /proc/PID/syscall has it."""
OWN_COMMAND = "smssh-hook"
"""An entry point of ours (`smssh-hook placeholder`), which an image that has only the bundle has nowhere."""


ADDED: set[str] = set()
"""Variables that the shell which started us has put into the environment; they are not passed on to the entry point."""


def run(command: list[str], launcher: str, bundle: str | None = None, digest: str = "") -> int:
    """Run the entry point and return its exit status.

    Args:
        command: the entry point's command line.
        launcher: which launcher calls, for the log.
        bundle: the folder of the bundle, if there is one; it goes to the front of the child's PYTHONPATH.
        digest: the SHA-256 of the bundle's manifest, where the request says it.
    """
    entry_point = None
    inherited = Inherited()
    try:
        # Where it was ignored, the kernel would reap the child, and its exit status would be gone.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        environ = original_environment()
        if not boot.enabled(environ):
            boot.load("hide").discard()
            return become(command, inherited)
        if environ.get("SMSSH_ENTRY") == _entry(os.getppid()):
            return become(
                command, inherited
            )  # one init above the entry point is enough, and this would be its child
        boot.move_bundle()
        boot.update_variables(environ)
        if boot.SM_CHANNEL in environ and boot.visible():
            boot.load("hide").filter_environment(environ)
        bundle = boot.moved_path(os.path.abspath(bundle)) if bundle else None
        tee, early = _may_hold_or_wait(environ, bundle or boot.bundle_dir())
        if os.getpid() == 1 and boot.load("pid1").is_required(command):
            return _beside(command, inherited, launcher, digest, environ, bundle, early=early, held=tee)
        _start_supervisor(launcher, environ, digest)
        entry_point = EntryPoint(command, _child_environment(environ, bundle), tee, inherited)
        return entry_point.run(early)
    except BaseException as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        boot.note(f"init failed: {type(error).__name__}: {error}")
        if entry_point is not None and entry_point.started:
            return entry_point.wait_only()
        return become(command, inherited)


def _beside(
    command: list[str],
    inherited: Inherited,
    launcher: str,
    digest: str,
    environ: Mapping[str, str],
    bundle: str | None,
    *,
    early: bool,
    held: bool,
) -> int:
    """Become the entry point, which has to be process 1, with the supervisor beside it; see `pid1`."""
    from ..errors import SmsshError

    _start_supervisor(launcher, environ, digest, holder=False)
    if early:
        try:
            boot.load("supervisor_client").wait_at_start(command)
        except SmsshError as error:
            os.write(2, f"smssh: {error}\n".encode())
            return int(error.status)
    if held:
        os.write(2, b"smssh: this entry point has to be process 1, so its failure cannot be held\n")
    child = _child_environment(environ, bundle)
    del child["SMSSH_ENTRY"]  # there is no init of ours above it
    return become(command, inherited, child)


def _may_hold_or_wait(environ: Mapping[str, str], bundle: str | None) -> tuple[bool, bool]:
    """Whether output may be wanted in a report, and whether the entry point may have to wait.

    A quick check that may say yes without need: the settings themselves are read when the child runs, or here if it
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


class Inherited:
    """The signals' state at the start, which is the entry point's."""

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        ours = [signal.SIGCHLD, *(getattr(signal, name) for name in JOB_CONTROL)]
        self._handlers = {number: signal.getsignal(number) for number in ours}
        # The interpreter ignores these; whether they were ignored before, it does not tell.
        self._handlers.update({signal.SIGPIPE: signal.SIG_DFL, signal.SIGXFSZ: signal.SIG_DFL})

    def restore(self) -> None:
        """Restore it, for what is executed next."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def become(
    command: list[str], inherited: Inherited | None = None, environ: Mapping[str, str] | None = None
) -> int:
    """Be the original command, as if init had never been here; 126 or 127 when it cannot be started."""
    (inherited or Inherited()).restore()
    try:
        os.execvpe(command[0], command, environ or original_environment())  # noqa: S606 - no shell is wanted
    except OSError as error:
        return _cannot_start(command, error)


def _cannot_start(command: list[str], error: OSError) -> int:
    os.write(2, f"smssh: {command[0]}: {os.strerror(error.errno or 0)}\n".encode())
    return 127 if isinstance(error, FileNotFoundError) else 126


def original_environment() -> dict[str, str]:
    """The environment this process was started with: Python itself may have added LC_CTYPE (PEP 538), a shell ADDED."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [part.partition(b"=") for part in file.read().split(b"\0")]
    found = {os.fsdecode(name): os.fsdecode(value) for name, equals, value in pairs if equals}
    return {name: value for name, value in found.items() if name not in ADDED}


def _child_environment(environ: Mapping[str, str], bundle: str | None) -> dict[str, str]:
    # By it the supervisor and `orphans` know the entry point's processes from all others.
    child = dict(environ, SMSSH_ENTRY=_entry())
    run = boot.run_dir()
    if run is not None:
        # Where TMPDIR changes on the way, it would be looked for elsewhere: a second supervisor, and no retry.
        child[boot.RUN_DIR] = run
    if bundle:
        # The bundle's sitecustomize records the traceback and wraps the training toolkits.
        child["PYTHONPATH"] = os.pathsep.join(part for part in (bundle, environ.get("PYTHONPATH")) if part)
    return child


def _entry(pid: int | None = None) -> str:
    """See `orphans.entry`; that module is not imported before it is needed."""
    pid = pid or os.getpid()
    return f"{pid}.{boot.start_time(pid)}"


def _start_supervisor(launcher: str, environ: Mapping[str, str], digest: str, *, holder: bool = True) -> None:
    try:
        boot.start_supervisor(launcher, os.getpid(), environ, holder=holder, digest=digest)
    except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        boot.note(f"the supervisor was not started: {type(error).__name__}: {error}")


class EntryPoint:
    """One entry point: its first attempt, and each retry.

    Args:
        command: its command line.
        environ: its environment.
        tee: whether its last lines of output are kept.
        inherited: the signals' state that its processes get.
    """

    def __init__(
        self, command: list[str], environ: Mapping[str, str], tee: bool, inherited: Inherited
    ) -> None:
        self.pid: int | None = None
        """The process of the attempt that runs, if one does."""
        self._command = command
        self._environ = environ
        self._inherited = inherited
        self._stopping = 0
        """The signal that asked for the job's end; 0 before that."""
        self._ended: int | None = None
        self._group = 0
        self._started = 0.0
        self._ended_at = 0.0
        self._end_at: float | None = None
        """When the supervisor deregisters although the entry point still runs: it has not seen that it is stopped."""
        ignored = {getattr(signal, name) for name in JOB_CONTROL}
        unforwarded = {getattr(signal, name) for name in NOT_FORWARDED} | ignored
        self._forwarded = set(signal.Signals) - unforwarded
        self._waited = self._forwarded | {signal.SIGCHLD}
        self._terminal = os.isatty(0)
        # Blocked, and taken one by one with sigtimedwait: no handler, no race with the start of the child.
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._waited)
        self._pipes = _pipes() if tee and not os.isatty(1) else []
        self._tee: supervisor_client.Tee | None = None
        self._reporter: supervisor_client.Reporter | None = None

    def run(self, early: bool) -> int:
        """Run attempts until one is not retried; the exit status of the job.

        Args:
            early: whether the settings may say that the first attempt has to wait.
        """
        refusal = self._wait_at_start() if early else None
        if refusal is not None:
            self._end_supervisor()
            return refusal
        while not self._stopping:
            try:
                self._start()
            except OSError as error:
                if not self.started:
                    raise  # no process can be made, and the entry point itself may need none: `run` becomes it
                self._end_supervisor()
                return _cannot_start(self._command, error)
            if self._reporter is None:
                # The supervisor and the child are starting: on two cores, a third would only slow them down.
                self._handle(HEAD_START)
            reporter = self._prepare()
            told = self._tell(reporter)
            while self.pid is not None:
                self._handle(1.0 if told else 0.05)
                if self._end_at is not None and time.monotonic() >= self._end_at:
                    # The kill ends this process too: nothing else would deregister.
                    self._end_supervisor()
                    self._end_at = None
                told = told or self._tell(reporter)
            status = self._ended or 0
            decision = self._decide(reporter, status)
            if decision["action"] == "retry":
                self._end_orphans()
                self._prepare_retry()
                if self._tee is not None:
                    self._tee.forget()
                continue
            chosen = decision.get("exit_code")
            self._end_supervisor()
            self._settle()
            return status if chosen is None else chosen
        # Stopped while nothing ran: before the first attempt, or between two.
        self._end_supervisor()
        return 128 + self._stopping if self._ended is None else self._ended

    @property
    def started(self) -> bool:
        """Whether an attempt runs or has run."""
        return self.pid is not None or self._ended is not None

    def wait_only(self) -> int:
        """Wait for the child and nothing else; its exit status. For when the rest of init has failed."""
        targets = {reader: 1 + n for n, (reader, _) in enumerate(self._pipes)} if self._tee is None else {}
        while self.pid is not None:
            _pass_on(targets, 0.05)
            self._handle(0.05)
        if self._tee is not None:
            self._settle()
        _pass_on(targets, 0)  # a pipe holds no more than is passed on at once
        return self._ended or 0

    def _settle(self) -> None:
        """See that the job's log has what the last attempt wrote, as long as nobody stops the job meanwhile."""
        if self._tee is not None:
            self._tee.settle(interrupted=lambda: self._handle(0) in STOPS)

    def _prepare(self) -> supervisor_client.Reporter:
        """What is needed once the child runs: the settings, the way to the supervisor, the last lines."""
        if self._reporter is None:
            from . import job_log, supervisor_client

            if self._pipes:
                self._tee = supervisor_client.Tee(pipes=self._pipes)
            self._reporter = supervisor_client.Reporter(
                "init",
                self._command,
                supervisor_client.job_settings(),
                job_log.say,
                interrupted=self._interrupted,
                entry=_entry(),
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

    def _tell(self, reporter: supervisor_client.Reporter) -> bool:
        """Say that the attempt runs, once the supervisor listens; True if there is no need to try once more."""
        from . import supervisor_client

        run = boot.run_dir()
        if run is None or not supervisor_client.supervisor_alive(run):
            return True
        if not os.path.exists(os.path.join(run, "socket")):
            return False
        reporter.before(started=self._started)
        return True

    def _decide(self, reporter: supervisor_client.Reporter, status: int) -> protocol.Decision:
        from . import supervisor_client

        if self._tee is not None:
            self._tee.settle(supervisor_client.TAIL_SECONDS)
        if status == 0:
            return reporter.succeeded(0)
        tail = None if self._tee is None else self._tee.tail()
        return reporter.failed(status, None, tail)

    def _end_supervisor(self) -> None:
        """Let the supervisor deregister; a second SIGTERM is in no hurry here, the time is bounded."""
        from . import supervisor_client

        try:
            supervisor_client.end()
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
            for handle, (_, writer) in enumerate(self._pipes, 1):
                os.dup2(writer, handle)
            self._inherited.restore()
            os.execvpe(self._command[0], self._command, self._environ)  # noqa: S606 - no shell is wanted
        except OSError as error:
            if self._command[0] == OWN_COMMAND and isinstance(error, FileNotFoundError):
                self._become_own_command()
            status = _cannot_start(self._command, error)
        finally:
            os._exit(status)

    def _become_own_command(self) -> None:
        """Run `smssh-hook` with this interpreter and this code."""
        command = [sys.executable, "-I", "-m", "smssh_plugin.entrypoints.smssh_hook"]
        if boot.code_path():
            code = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
            code += "from smssh_plugin.entrypoints.smssh_hook import main; sys.exit(main())"
            command[2:] = ["-S", "-c", code, boot.code_path()]
        os.execve(sys.executable, command + self._command[1:], self._environ)  # noqa: S606 - no shell is wanted

    def _take_terminal(self, group: int) -> None:
        if self._terminal:
            try:
                os.tcsetpgrp(0, group)
            except OSError:
                self._terminal = False

    def _handle(self, seconds: float) -> int:
        """Take one signal, if one comes within `seconds`: forward it, or reap what has ended.

        Returns:
            The signal that was forwarded; 0 if there was no signal to forward.
        """
        taken = signal.sigtimedwait(self._waited, seconds)
        # Reaped in any case: SIGCHLD says that at least one process has ended, and one may be merged with
        # another.
        # A socket that the supervisor leaves behind raises SIGPIPE here, and blocked signals are never ignored.
        ours = taken is not None and taken.si_pid == os.getpid()
        number = 0
        if taken is not None and taken.si_signo != signal.SIGCHLD and not ours:
            number = taken.si_signo
            if number in STOPS:
                self._stopping = self._stopping or number
            self._forward(number)
        self._reap()
        return number

    def _forward(self, number: int) -> None:
        """Pass a signal on to the entry point, unless it would not have got it without us.

        The container's first process gets no signal that it neither handles nor blocks (pid_namespaces(7)). The entry
        point would have been that process: `train`, which has no handler for SIGTERM, goes on until the service kills
        it, and so do its last checkpoints.
        """
        if self.pid is None:
            return
        if os.getpid() == 1 and not _wants(self.pid, number):
            if number in STOPS and self._end_at is None:
                self._end_at = time.monotonic() + STOP_GRACE
            return
        try:  # noqa: SIM105 - contextlib would only be imported for this
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

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
                self._ended_at = time.time()

    def _interrupted(self) -> bool:
        """Polled during a hold: handle what has come, and say whether the job is being stopped."""
        self._handle(0)
        return bool(self._stopping)

    def _prepare_retry(self) -> None:
        from . import retry

        retry.prepare(self._environ, self._started, self._ended_at)

    def _end_orphans(self) -> None:
        """Have nothing of the last attempt run beside the next one."""
        from . import orphans

        left = orphans.end(lambda: orphans.find(_entry(), self._group), self._handle)
        if left:
            boot.note(f"orphans of the last attempt still run: {left}")


def _wants(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or waits for it; True where that cannot be told."""
    bit = 1 << (number - 1)
    try:
        with open(f"/proc/{pid}/status") as file:
            masks = [line.split() for line in file if line.startswith(("SigBlk:", "SigCgt:"))]
        if any(int(mask, 16) & bit for _, mask in masks):
            return True
        # Another init (tini, dumb-init): in sigtimedwait, what it waits for does not count as blocked.
        with open(f"/proc/{pid}/syscall") as file:
            return file.read().split()[0] == SIGTIMEDWAIT.get(os.uname().machine)
    except (OSError, ValueError, IndexError):
        return True


def _pass_on(targets: dict[int, int], seconds: float) -> None:
    """Take once from each pipe that has something, and write it; a pipe whose target is gone is left out then."""
    import select

    for reader in select.select(list(targets), [], [], seconds)[0]:
        rest = os.read(reader, 65536)
        try:
            while rest:
                rest = rest[os.write(targets[reader], rest) :]
        except OSError:
            os.close(reader)
            del targets[reader]


def _pipes() -> list[tuple[int, int]]:
    """Pipes for the child's stdout and stderr; the same one where both go to one place, to keep their order."""
    first = os.pipe()
    try:
        together = os.path.sameopenfile(1, 2)
    except OSError:  # one of them is closed
        together = False
    return [first, first if together else os.pipe()]


def main(arguments: list[str]) -> int:
    """`smssh-hook run -- CMD...`: init where the switch is on, nothing at all where it is off."""
    if not boot.enabled(os.environ):
        return become(arguments)
    return run(arguments, "smssh-hook", boot.bundle_dir())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
