"""The supervisor: the one detached process of a container, which runs the hooks and serves the Unix socket.

Started by boot, never by hand. It ends with the job: when the process that runs the entry point says so, or is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import logging
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

from .. import terminal
from ..entrypoints import boot, supervisor_client
from ..entrypoints.job_log import JobLog
from ..errors import SmsshError
from ..files import write_atomically
from ..hooks import apt, asyncssh_server, hold, hosts, keys, log_events, native, notify, report, sshd, ssm
from ..hookspecs import Context
from ..manifest import MANIFEST, PLUGINS, Manifest
from ..plugins import Plugins
from ..settings import Settings, deprecated, end_seconds, load
from . import job
from .operations import Operations
from .socket import Service

BUILTIN = (
    ("keys", keys),
    ("sshd", sshd),
    ("apt", apt),
    ("asyncssh", asyncssh_server),
    ("hosts", hosts),
    ("ssm", ssm),
    ("native", native),
    ("log_events", log_events),
    ("notify", notify),
    ("hold", hold),
    ("report", report),
)
"""The built-in plugins; of the SSH servers, the first that works wins. `hosts` is stopped before `ssm`."""

STOP_LIMIT = 9.0
"""Seconds for all that the stop of the supervisor does."""
LET_OUT_LIMIT = 2.0
"""Seconds in which the answer to `smssh-hook retry` may still travel over SSH when the job ends."""

_log = logging.getLogger("smssh.supervisor")


def main(arguments: list[str] | None = None) -> int:
    """Run the supervisor until the job is over."""
    parser = argparse.ArgumentParser(prog="smssh-supervisor")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--lock", type=int, required=True)
    parser.add_argument("--entry", type=int, required=True)
    parser.add_argument("--output", default="")
    parser.add_argument("--launcher", required=True)
    parser.add_argument("--holder", action="store_true")
    parser.add_argument("--bundle", type=lambda path: Path(path) if path else None)
    parser.add_argument("--digest", default="")
    options = parser.parse_args(arguments)
    os.set_inheritable(options.lock, False)
    boot.write_lock(options.lock, os.getpid())
    # boto3 says much at DEBUG, credentials among it: only our own loggers are ever that loud.
    logging.basicConfig(level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Safe("%(asctime)s %(name)s %(message)s"))
    faulthandler.enable()
    supervisor = Supervisor(
        options.run,
        options.entry,
        options.bundle,
        options.digest,
        job_log=JobLog(options.entry, options.output),
        holder=options.holder,
    )
    _log.info("started by %s for process %d", options.launcher, options.entry)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop_wanted.set())
    return supervisor.run()


class _Safe(logging.Formatter):
    """Lines that can be looked at: what the job, its files and AWS say may hold a terminal's commands."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text; its further lines, a traceback's, are indented."""
        return terminal.block(super().format(record), "  ")


class _Repeater(logging.Handler):
    """Writes the supervisor's log into the job's log as well.

    Args:
        say: writes one line there.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._say(f"smssh: {record.name}: {record.getMessage()}")


class Supervisor:
    """Puts hooks, operations and socket together.

    Args:
        run_dir: the container's private folder.
        entry: the process that ends the job.
        bundle: the folder of the bundle, if there is one.
        digest: the SHA-256 of its manifest, where the request says it.
        job_log: where lines for the job's log go while nothing is held.
        holder: whether what started this can hold the job when its entry point ends.
    """

    def __init__(
        self,
        run_dir: Path,
        entry: int,
        bundle: Path | None,
        digest: str = "",
        *,
        job_log: JobLog,
        holder: bool,
    ) -> None:
        self._digest = digest
        self._entry = entry
        self._job_log = job_log
        self._entry_started = boot.start_time(entry)
        self._error: str | None = None
        environ = job.job_environment(os.environ, boot.JOB_PREFIX)
        for name in list(os.environ):
            if name.startswith(boot.JOB_PREFIX):
                del os.environ[name]
        options = supervisor_client.read_options(None if bundle is None else str(bundle))
        settings = self._load_settings(environ, options)
        self._deprecated = deprecated(environ, options)
        if bundle is not None:
            _add_plugins(bundle, digest)
        identity = job.identify(environ, settings.step, _command_line(entry))
        self._plugins = Plugins(BUILTIN, disabled=settings.disable_hooks)
        self._context = Context(
            settings=settings,
            job=identity,
            run_dir=run_dir,
            environment=job.login_environment(environ, None if bundle is None else str(bundle)),
            code_dir=job.code_dir(environ, identity.kind),
            python_path=boot.code_path(),
            bundle=bundle,
        )
        limit = job.max_runtime(environ, settings.max_runtime)
        self._operations = Operations(
            self._context,
            self._plugins,
            self._say,
            holder=holder,
            ends=job.started(environ) + limit - end_seconds(limit) if limit else None,
        )
        self._context.say = self._operations.holds.say
        self.stop_wanted = self._operations.lifecycle.stop_wanted
        self._context.ending = self.stop_wanted
        self._service = Service(run_dir, self._operations)

    def run(self) -> int:
        """Start, serve until the job is over, stop."""
        self._service.start()
        # The start runs beside the watch: a job can be over before it, and hooks talk to networks.
        starter = threading.Thread(target=self._start, name="start", daemon=True)
        starter.start()
        while not self.stop_wanted.wait(0.5):
            if boot.start_time(self._entry) != self._entry_started or self._entry_started is None:
                _log.info("process %d is gone", self._entry)
                break
        self._stop(starter)
        return 0

    def _load_settings(self, environ: dict[str, str], options: dict[str, Any]) -> Settings:
        try:
            return load(environ, options)
        except SmsshError as error:
            self._error = str(error)
            return Settings()

    def _start(self) -> None:
        """Make a login possible, and say whether it is."""
        if self._context.settings.log_to_stdout:
            logging.getLogger("smssh").addHandler(_Repeater(self._say))
        if self._deprecated:
            names = ", ".join(f"{alias} ({name})" for alias, name in sorted(self._deprecated.items()))
            self._context.say(
                f"smssh: sagemaker-ssh-helper's names are understood; use those in parentheses: {names}"
            )
        self._say_what_is_seen()
        unwanted = self._unwanted()
        if unwanted is not None:
            _log.info("%s", unwanted)
            self._operations.started(unwanted, wanted=False)
            return
        try:
            if self._error is None:
                self._error = self._damage() or self._start_hooks()
        except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
            _log.exception("start")
            self._error = f"{type(error).__name__}: {error}"
        if self._error is not None:
            _log.error("no login is possible: %s", self._error)
            self._context.say(
                "smssh: no login is possible in this job: {}".format(self._error.replace("\n", " "))
            )
        self._operations.started(self._error)

    def _say_what_is_seen(self) -> None:
        """Say what of ours the job can see, see `hide`."""
        with contextlib.suppress(OSError):
            seen = (self._context.run_dir / boot.VISIBLE).read_text(encoding="utf-8", errors="replace")
            _log.warning("in sight: %s", seen)
            self._context.say(f"smssh: the job can see that it has an input 'smssh': {seen}")

    def _unwanted(self) -> str | None:
        """Why this host has no login, if the job has more hosts than the settings want."""
        identity, count = self._context.job, self._context.settings.hosts
        if not count or identity.host not in identity.hosts[count:]:
            return None
        return (
            f"{identity.host} is not one of the first {count} hosts (SMSSH_HOSTS), so nobody can log in here"
        )

    def _damage(self) -> str | None:
        """What is wrong with the bundle; None if nothing is, or if nothing of it is used.

        Here, because it delays no entry point: only the archive, and only by run.sh, is checked before it is run.
        Wheels are checked when they are unpacked, the agent has a digest of its own.
        """
        bundle = self._context.bundle
        if bundle is None or not (boot.code_path() or (bundle / MANIFEST).exists()):
            return None  # a baked image, whose job was given the bundle's variables and not the bundle
        try:
            manifest = Manifest.of_folder(bundle, self._digest)
            for name in manifest.files:
                if not name.startswith(("wheels/", "agent/")):
                    manifest.check_file(bundle, name)
        except SmsshError as error:
            return str(error)
        return None

    def _start_hooks(self) -> str | None:
        """Run the hooks that make a login possible; the reason when one isn't, else None."""
        context, plugins = self._context, self._plugins
        changes = plugins.configure(context.settings, context.job)
        if changes:
            context.settings = dataclasses.replace(context.settings, **changes)
        self._operations.configured()
        self._write_launcher()
        context.authorized_keys = plugins.authorized_keys(context)
        if not context.authorized_keys:
            return "no public key may log in (SMSSH_AUTHORIZED_KEYS is empty)"
        context.server = plugins.start_server(context)
        if context.server is None:
            return f"no SSH server works here; see {context.run_dir}/supervisor.log"
        _log.info("SSH server %s on port %d", context.server.name, context.server.port)
        if self.stop_wanted.is_set():
            return "the job is over"
        if context.settings.transport != "none":
            context.transport = plugins.start_transport(context)
            if context.transport is None:
                return f"no transport works here; see {context.run_dir}/supervisor.log"
            _log.info("transport %s, target %s", context.transport.name, context.transport.target)
        plugins.announce(context)
        plugins.ready(context)
        return None

    def _write_launcher(self) -> None:
        """`smssh-hook` for logins: the same interpreter and the same code as the supervisor."""
        folder = self._context.run_dir / "bin"
        folder.mkdir(mode=0o700, exist_ok=True)
        code = "import sys; path = sys.argv.pop(1); path and sys.path.insert(0, path); "
        code += "from smssh_plugin.entrypoints.smssh_hook import main; sys.exit(main())"
        # -I: neither the login's PYTHON* variables nor its current folder matter here. A zip needs
        # no site.
        options = "-I -S" if self._context.python_path else "-I"
        words = [sys.executable, *options.split(), "-c", code, self._context.python_path]
        lines = [
            "#!/bin/sh",
            f"unset {boot.ENABLE}",
            f"export {boot.RUN_DIR}={shlex.quote(str(self._context.run_dir))}",
            'exec {} "$@"'.format(" ".join(shlex.quote(word) for word in words)),
        ]
        write_atomically(folder / "smssh-hook", "\n".join(lines) + "\n", mode=0o700)

    def _say(self, line: str) -> None:
        """One line into the job's log, past the job's own processes; nothing where that cannot be done."""
        if not self._job_log.say(terminal.line(line)):
            _log.debug("not said: %s", line)

    def _stop(self, starter: threading.Thread) -> None:
        """Stop the hooks within STOP_LIMIT, then answer the process that waits for that."""
        self.stop_wanted.set()
        deadline = time.monotonic() + STOP_LIMIT
        # Whatever hangs, this process ends; its children have its death as a signal.
        watchdog = threading.Timer(STOP_LIMIT, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        self._operations.holds.let_answers_out(LET_OUT_LIMIT)
        starter.join(2.0)
        self._operations.finish(max(0.0, min(2.0, deadline - time.monotonic())))
        self._plugins.stop(self._context)
        self._service.close()
        # Said first: the entry point's process, whose output the line may go to, waits for no more than the answer.
        _log.info("stopped")
        self._operations.lifecycle.stopped.set()
        # The connection threads answer now; they have nothing else to do.
        for thread in threading.enumerate():
            if thread.name == "connection":
                thread.join(0.5)

    def _give_up(self) -> None:
        _log.error("the stop took too long")
        self._operations.lifecycle.stopped.set()
        time.sleep(0.1)
        os._exit(1)


def _add_plugins(bundle: Path, digest: str) -> None:
    """Let the plugins that travel in the bundle be found, before those of the image."""
    archive = bundle / PLUGINS
    if archive.is_file():
        try:
            Manifest.of_folder(bundle, digest).check_file(bundle, PLUGINS)
        except SmsshError as error:
            _log.warning("plugins of the bundle are skipped: %s", error.message)
        else:
            sys.path.insert(0, str(archive))


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Threads of third-party hooks must not keep the container's end waiting.
    os._exit(status)
