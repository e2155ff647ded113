"""The import hook of the training toolkits: hold and retry inside their own error handling.

`sagemaker_training` 3.x to 5.x and the legacy `sagemaker_containers` run the user's script through
`entry_point.run`; XGBoost's image has other ways. Each is wrapped when its module is imported. The wrapper raises
what the function raised, with the same traceback, so the toolkit writes the same failure file and ends with the
same status.

Runs in the `train` process: CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import functools
import importlib.machinery
import os
import re
import signal
import sys
import threading
import time

from ..errors import SmsshError
from . import boot, hide, job_log, orphans, supervisor_client

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType
    from typing import Any, Callable, Sequence

    from ..settings import Settings
    from ..supervisor import protocol

TARGETS = {
    "sagemaker_training.entry_point": ("run",),
    "sagemaker_containers.entry_point": ("run",),
    # SageMaker's XGBoost image calls this one directly.
    "sagemaker_containers._modules": ("run_module",),
    # And this one where the user gave it no script.
    "sagemaker_xgboost_container.training": ("run_algorithm_mode",),
}
FILES = {
    "sagemaker_training.files": "write_failure_file",
    "sagemaker_containers._files": "write_failure_file",
}
"""Wrapped before Python 3.11 only, see `_wrap_failure_file`."""

EXITS = {"sagemaker_training.trainer": "_exit_processes", "sagemaker_containers._trainer": "_exit_processes"}
"""By os._exit in sagemaker_training 3.x and sagemaker_containers: no exit handler of ours would be run."""
INPUTS = {
    "sagemaker_training.environment": "read_input_data_config",
    "sagemaker_training._env": "read_input_data_config",
    "sagemaker_containers._env": "read_input_data_config",
}
"""Wrapped only where our channel could not be taken out of what they read, see `hide`."""

_running = False


def install() -> None:
    """Have the toolkits' modules wrapped: now where they are imported already, else when they will be."""
    sys.meta_path.insert(0, Finder())
    for name in [*TARGETS, *FILES, *EXITS, *INPUTS]:
        module = sys.modules.get(name)
        if module is not None and _is_wanted(name):
            _wrap(name, module)


def _is_wanted(name: str) -> bool:
    if name in INPUTS:
        return hide.inputs_in_sight()
    return name in TARGETS or name in EXITS or (name in FILES and sys.version_info < (3, 11))


class Finder:
    """Finds the toolkits' modules where Python would, and wraps their functions once they are loaded."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG004 - the import system's signature
        """The spec of a module that is wrapped; None for every other."""
        if not _is_wanted(name):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            try:
                _wrap(name, module)
            except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
                boot.note(f"{name} is not wrapped: {error}")

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _wrap(name: str, module: ModuleType) -> None:
    for function in TARGETS.get(name, ()):
        setattr(module, function, wrapped(getattr(module, function)))
    if name in FILES:
        setattr(module, FILES[name], _wrap_failure_file(getattr(module, FILES[name])))
    if name in EXITS:
        setattr(module, EXITS[name], _wrap_exit(getattr(module, EXITS[name])))
    if name in INPUTS:
        setattr(module, INPUTS[name], _wrap_inputs(getattr(module, INPUTS[name])))


def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with hold and retry around it."""

    @functools.wraps(original)
    def smssh_entry_point(*arguments: Any, **options: Any) -> Any:
        attempts = ToolkitAttempts.begin()
        if attempts is None:
            return original(*arguments, **options)
        try:
            while True:
                attempts.before(options.get("env_vars") or (arguments[3:4] or (None,))[0])
                try:
                    result = original(*arguments, **options)
                except Exception as error:
                    decision = attempts.failed(error)
                    if decision == "retry":
                        continue
                    if decision == "succeed":
                        return None
                    # This frame must not show in the failure file. A bare `raise` adds no second one
                    # (3.11+).
                    if error.__traceback__ is not None:
                        error.__traceback__ = error.__traceback__.tb_next
                    raise
                if attempts.succeeded() != "retry":
                    return result
        finally:
            attempts.finish()

    return smssh_entry_point


def _wrap_failure_file(original: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function, with the wrapper's frame taken out of the text.

    Before 3.11 a re-raised exception keeps the traceback it was caught with, whatever is assigned to it.
    """
    frame = re.compile(r'  File "[^"\n]*toolkit\.py", line \d+, in smssh_entry_point\n(?:    .*\n)?')

    @functools.wraps(original)
    def write_failure_file(message: str) -> Any:
        return original(frame.sub("", message))

    return write_failure_file


def _wrap_exit(original: Callable[[int], Any]) -> Callable[[int], Any]:
    """The function, with our own exit handler before it."""

    @functools.wraps(original)
    def exit_processes(exit_code: int) -> Any:
        boot.end_before_exit()
        return original(exit_code)

    return exit_processes


def _wrap_inputs(original: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The function, without our channel in what it reads."""

    @functools.wraps(original)
    def read_input_data_config() -> dict[str, Any]:
        return {name: value for name, value in original().items() if name != hide.CHANNEL}

    return read_input_data_config


class ToolkitAttempts:
    """The attempts of one call of the toolkit's entry point."""

    def __init__(self, settings: Settings) -> None:
        self._terminated = False
        self._started = self._ended = 0.0
        self._previous: Any = None
        # Where init is above us, its name for the entry point is inherited, and stays.
        self._entry = os.environ.setdefault(orphans.ENTRY, orphans.entry())
        self._others = orphans.running()
        self._tee = Redirect() if "failure" in settings.hold else None
        self._reporter = supervisor_client.Reporter(
            "toolkit",
            boot.own_command(),
            settings,
            self._say,
            interrupted=lambda: self._terminated,
            code_dir=_code_dir(),
            entry=self._entry,
        )

    @classmethod
    def begin(cls) -> ToolkitAttempts | None:
        """Ready for the first attempt; None if no supervisor can be there, or an outer call is handled.

        Raises:
            SmsshError: SMSSH_STRICT is set and no login is possible; the toolkit writes it into the failure
                file.
        """
        global _running  # noqa: PLW0603 - one entry point in a process
        if _running or (boot.run_dir() is None and not supervisor_client.job_settings().strict):
            return None
        attempts = None
        try:
            attempts = cls(supervisor_client.job_settings())
            attempts._at_start()
        except Exception as error:
            if attempts is not None:
                attempts.finish()
            if isinstance(error, SmsshError):
                raise
            boot.note(f"toolkit: {type(error).__name__}: {error}")
            return None
        _running = True
        return attempts

    def _at_start(self) -> None:
        self._catch_sigterm()
        try:
            self._reporter.at_start()
        finally:
            self._restore_sigterm()
        if self._terminated:
            # Stopped while it waited: the script is not started, and no toolkit may call that a success.
            supervisor_client.end()
            os._exit(128 + signal.SIGTERM)

    def before(self, variables: object) -> None:
        """An attempt starts.

        Args:
            variables: the SM_* mapping that the toolkit is about to put into the environment, if it is known.
        """
        self._started = time.time()
        self._reporter.before(variables if isinstance(variables, dict) else None, self._started)

    def failed(self, error: Exception) -> str:
        """An attempt raised: `retry`, `succeed` (a person released it with status 0) or `release`."""
        self._ended = time.time()
        status = _exit_code(error)
        text = str(error) or type(error).__name__
        tail = None if self._tee is None else self._tee.tail()
        decision = self._hold(lambda: self._reporter.failed(status, text[-4000:], tail))
        if self._follow(decision) == "retry":
            return "retry"
        return "succeed" if decision.get("exit_code") == 0 else "release"

    def succeeded(self) -> str:
        """An attempt returned: `retry` or `release`."""
        self._ended = time.time()
        return self._follow(self._hold(lambda: self._reporter.succeeded(0)))

    def _follow(self, decision: protocol.Decision) -> str:
        """Prepare what was decided: `retry` or `release`."""
        if decision["action"] == "retry":
            self._end_orphans()
            boot.load("retry").forget_status(self._started, self._ended)
            if self._tee is not None:
                self._tee.forget()
            return "retry"
        # Status 0 is what the toolkit ends with after a success, and what makes one of a failure.
        boot.forced_exit = decision.get("exit_code") or None
        return "release"

    def finish(self) -> None:
        """Put stdout, stderr and the signal handler back."""
        global _running  # noqa: PLW0603 - see begin
        _running = False
        if self._tee is not None:
            self._tee.restore()

    def _hold(self, ask: Callable[[], protocol.Decision]) -> protocol.Decision:
        self._catch_sigterm()
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
            boot.note(f"toolkit: {type(error).__name__}: {error}")
            return supervisor_client.RELEASE
        finally:
            self._restore_sigterm()

    def _end_orphans(self) -> None:
        """Have nothing of the last attempt run beside the next one."""
        left = orphans.end(lambda: orphans.find(self._entry, children=True, keep=self._others))
        if left:
            boot.note(f"orphans of the last attempt still run: {left}")

    def _say(self, line: str) -> None:
        sys.stdout.flush()
        job_log.say(line)

    def _catch_sigterm(self) -> None:
        """A stop of the job ends a hold: as process 1, `train` would not even notice it."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)

    def _restore_sigterm(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signature that others call
        self._terminated = True


class Redirect:
    """stdout and stderr of this process and its children through a Tee, until `restore`."""

    def __init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = [os.dup(1), os.dup(2)]
        self._tee = supervisor_client.Tee(self._saved)
        for handle, writer in zip((1, 2), self._tee.writers):
            os.dup2(writer, handle)

    def tail(self) -> list[str]:
        """The last lines until now."""
        self._flush()
        self._tee.settle(supervisor_client.TAIL_SECONDS)
        return self._tee.tail()

    def forget(self) -> None:
        """See `Tee.forget`."""
        self._tee.forget()

    def restore(self) -> None:
        """Put stdout and stderr back, once what was written to them is where it would be without us."""
        self._flush()
        self._tee.settle()
        for handle, saved in zip((1, 2), self._saved):
            os.dup2(saved, handle)

    @staticmethod
    def _flush() -> None:
        sys.stdout.flush()
        sys.stderr.flush()


def _exit_code(error: Exception) -> int:
    """The script's exit status: the toolkits' errors have it as number or text, negative for a signal."""
    try:
        status = int(getattr(error, "return_code"))  # noqa: B009 - the toolkits' own attribute
    except (AttributeError, TypeError, ValueError):
        return 1
    return 128 - status if status < 0 else status or 1


def _code_dir() -> str | None:
    for name in ("sagemaker_training.environment", "sagemaker_containers._env"):
        found = getattr(sys.modules.get(name), "code_dir", None)
        if found:
            return str(found)
    return None
