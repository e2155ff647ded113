"""Make init the parent of a job's own program, where the request named no entry point that could be wrapped.

With an image's own entry point, a model server or a Spark job, the launcher runs inside the program's interpreter, too
late to start it as a child. If the settings ask for a hold, a wait or SMSSH_STRICT, this interpreter becomes init
instead, in the same process, and init starts the same command line as its child: no code of the user's has run
by then. Otherwise nothing happens here.

Runs in the job's interpreter: CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import os
import sys

from . import boot

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Sequence

CODE = """
import os, sys
try:
    sys.path.insert(0, sys.argv[1])
    from smssh_plugin.entrypoints import init
except BaseException:
    os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(init.run(sys.argv[2:], "reexec"))
"""
"""What the interpreter runs instead; if that fails, the job's own command."""


def at_start(arguments: Sequence[str], whole: bool) -> None:
    """Before the user's code: become init, wait or go on, as the settings say.

    Args:
        arguments: this process's command line.
        whole: whether the end of this process is the end of what the job does.
    """
    if not _asked():
        return
    if whole and _first_time():
        _become_init(arguments)
    boot.load("supervisor_client").wait_at_start(arguments)


def _asked() -> bool:
    """Whether a hold, a wait or SMSSH_STRICT may be set: a quick check that may say yes without need.

    The settings themselves are read by the code that acts on them; a job without any of these does not wait for that.
    """
    names = ("SMSSH_HOLD", "SMSSH_WAIT", "SMSSH_STRICT", "SSH_WAIT_TIME_SECONDS")
    if any(os.environ.get(name) for name in names):
        return True
    try:
        with open(os.path.join(boot.bundle_dir() or "", "options.json"), "rb") as file:
            options = file.read()
    except OSError:
        return False
    return any(key in options for key in (b'"hold"', b'"wait"', b'"strict"'))


def _first_time() -> bool:
    """Whether this process tries it for the first time: if init fails and runs the original command, that one runs."""
    run = boot.run_dir()
    if run is None:
        return False
    mark = os.path.join(run, f"reexec-{os.getpid()}-{boot.start_time(os.getpid())}")
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    return True


def _become_init(arguments: Sequence[str]) -> None:
    """Run init in this process; returns only when that cannot be done."""
    if not sys.executable:
        return
    package = os.path.dirname(os.path.dirname(os.path.abspath(boot.__file__)))
    place = boot.code_path() or os.path.dirname(package)
    # -I -S: nothing of the job's PYTHON* variables, site-packages or folder may get in there, our launcher neither.
    command = [sys.executable, "-I", "-S", "-c", CODE, place, *arguments]
    environ = boot.load("init").original_environment()
    boot.update_variables(environ)
    try:
        os.execve(sys.executable, command, environ)  # noqa: S606 - no shell
    except OSError as error:
        boot.note(f"init cannot be started: {error}")
