"""The typed front of pluggy: every hook is a method here, every failing plugin is named and skipped."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections import abc
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Sequence, cast

import pluggy

from . import hookspecs

if TYPE_CHECKING:
    from types import ModuleType

    from .hookspecs import (
        Context,
        Failure,
        Hold,
        HostAnswer,
        HostQuestion,
        HostState,
        Job,
        Server,
        Transport,
    )
    from .settings import Settings

__all__ = ["GROUP", "Plugins", "within"]

GROUP = "smssh"
"""The entry-point group in which third-party packages name their plugins."""
IMPORT_LIMIT = 10.0
"""Seconds for the import of a third-party plugin; the supervisor answers nobody before it is over."""
LIMITS = {
    name: function.smssh_limit
    for name, function in vars(hookspecs).items()
    if name.startswith("smssh_") and function.smssh_limit is not None
}
"""Seconds for one plugin's part in a hook, as `hookspecs.py` declares them."""
ANSWERS: Mapping[str, tuple[type, ...]] = {
    "smssh_configure": (abc.Mapping,),
    "smssh_authorized_keys": (list, tuple),
    "smssh_start_server": (hookspecs.Server,),
    "smssh_start_transport": (hookspecs.Transport,),
    "smssh_collect_report": (abc.Mapping,),
    "smssh_ask_hosts": (hookspecs.HostAnswer,),
    "smssh_other_hosts": (abc.Mapping,),
    "smssh_transform_request": (abc.Mapping,),
    "smssh_probes": (list, tuple),
}
"""What a hook's answer is, if it is not None; any other answer is skipped like an error."""
ITEMS: Mapping[str, type] = {"smssh_authorized_keys": str, "smssh_other_hosts": hookspecs.HostState}
"""What the items, or the values, of an answer are."""

_log = logging.getLogger("smssh.plugins")


class Plugins:
    """The plugins of this process, and one typed method for each hook.

    Args:
        builtin: name and module of each built-in plugin; of two that both answer a first-result hook, the one
            listed first is asked first.
        disabled: names that are not loaded.
        entry_points: whether installed packages are asked for plugins.
    """

    def __init__(
        self,
        builtin: Iterable[tuple[str, ModuleType]] = (),
        *,
        disabled: Iterable[str] = (),
        entry_points: bool = True,
    ) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._disabled = frozenset(disabled)
        # pluggy asks the plugin that was registered last first.
        for name, module in reversed(list(builtin)):
            self.register(module, name)
        if entry_points:
            self._load_entry_points()

    @property
    def names(self) -> list[str]:
        """The names of the loaded plugins, sorted."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin is not None)

    def register(self, plugin: object, name: str) -> bool:
        """Load one plugin; False when it is disabled or unusable (its name and the reason are logged)."""
        if name in self._disabled:
            _log.info("plugin %s is disabled", name)
            return False
        try:
            self._manager.register(plugin, name)
            self._refuse_unknown_hooks(plugin)
        except Exception as error:  # noqa: BLE001 - no plugin can fail a job
            _log.warning("plugin %s is skipped: %s", name, error)
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            return False
        for caller in self._manager.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin and not (
                    implementation.hookwrapper or getattr(implementation, "wrapper", False)
                ):
                    object.__setattr__(
                        implementation, "function", _guarded(implementation.function, name, caller.name)
                    )
        return True

    def _refuse_unknown_hooks(self, plugin: object) -> None:
        """A misspelt hook would be silently dead otherwise."""
        for caller in self._manager.get_hookcallers(plugin) or ():
            if not caller.has_spec() and not all(each.optionalhook for each in caller.get_hookimpls()):
                raise ValueError(f"{caller.name} is not a hook of smssh")

    def _load_entry_points(self) -> None:
        try:
            points = _entry_points()
        except Exception as error:  # noqa: BLE001 - no plugin can fail a job
            _log.warning("third-party plugins are skipped: %s: %s", type(error).__name__, error)
            return
        for point in points:
            if point.name in self._disabled:
                _log.info("plugin %s is disabled", point.name)
                continue
            try:
                plugin = within(IMPORT_LIMIT, point.load)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - no plugin can fail a job
                _log.warning("plugin %s is skipped: %s: %s", point.name, type(error).__name__, error)
                continue
            self.register(plugin, point.name)

    # ---------------------------------------------------------------------------- start of the supervisor

    def configure(self, settings: Settings, job: Job) -> dict[str, Any]:
        """See `smssh_configure`."""
        return _merge(self._manager.hook.smssh_configure(settings=settings, job=job))

    def authorized_keys(self, context: Context) -> tuple[str, ...]:
        """See `smssh_authorized_keys`; without duplicates, in the order of the plugins."""
        answers = self._manager.hook.smssh_authorized_keys(context=context)
        return tuple(dict.fromkeys(key.strip() for answer in answers for key in answer if key.strip()))

    def start_server(self, context: Context) -> Server | None:
        """See `smssh_start_server`."""
        return cast("Server | None", self._manager.hook.smssh_start_server(context=context))

    def start_transport(self, context: Context) -> Transport | None:
        """See `smssh_start_transport`."""
        return cast("Transport | None", self._manager.hook.smssh_start_transport(context=context))

    def announce(self, context: Context) -> None:
        """See `smssh_announce`."""
        self._manager.hook.smssh_announce(context=context)

    def ready(self, context: Context) -> None:
        """See `smssh_ready`."""
        self._manager.hook.smssh_ready(context=context)

    # ---------------------------------------------------------------------------- every attempt

    def before_entry_point(self, context: Context, attempt: int, command: Sequence[str]) -> None:
        """See `smssh_before_entry_point`."""
        self._manager.hook.smssh_before_entry_point(context=context, attempt=attempt, command=command)

    def after_entry_point(self, context: Context, attempt: int, exit_code: int) -> None:
        """See `smssh_after_entry_point`."""
        self._manager.hook.smssh_after_entry_point(context=context, attempt=attempt, exit_code=exit_code)

    def entry_point_failed(self, context: Context, failure: Failure) -> None:
        """See `smssh_entry_point_failed`."""
        self._manager.hook.smssh_entry_point_failed(context=context, failure=failure)

    def collect_report(self, context: Context, failure: Failure) -> dict[str, Any]:
        """See `smssh_collect_report`."""
        return _merge(self._manager.hook.smssh_collect_report(context=context, failure=failure))

    def hold(self, context: Context, point: str, exit_code: int | None) -> bool:
        """See `smssh_hold`; False when no plugin wants to."""
        return bool(self._manager.hook.smssh_hold(context=context, point=point, exit_code=exit_code))

    def tell_hosts(self, context: Context, own: HostState) -> bool:
        """See `smssh_tell_hosts`; whether all have told it."""
        answers = self._manager.hook.smssh_tell_hosts(context=context, own=own)
        return not any(answer is False for answer in answers)

    def ask_hosts(self, context: Context, question: HostQuestion) -> HostAnswer | None:
        """See `smssh_ask_hosts`."""
        return cast(
            "HostAnswer | None", self._manager.hook.smssh_ask_hosts(context=context, question=question)
        )

    def other_hosts(self, context: Context) -> Mapping[str, HostState] | None:
        """See `smssh_other_hosts`."""
        return cast("Mapping[str, HostState] | None", self._manager.hook.smssh_other_hosts(context=context))

    def notify(self, context: Context, event: str, message: str, hold: Hold | None = None) -> None:
        """See `smssh_notify`."""
        self._manager.hook.smssh_notify(context=context, event=event, message=message, hold=hold)

    def stop(self, context: Context) -> None:
        """See `smssh_stop`."""
        self._manager.hook.smssh_stop(context=context)

    # ---------------------------------------------------------------------------- submit and client

    def transform_request(self, kind: str, request: Mapping[str, Any], options: object) -> Mapping[str, Any]:
        """See `smssh_transform_request`; each plugin is given what the one before returned."""
        caller = self._manager.hook.smssh_transform_request
        for implementation in reversed(caller.get_hookimpls()):
            given = {"kind": kind, "request": request, "options": options}
            answer = implementation.function(*(given[name] for name in implementation.argnames))
            request = request if answer is None else cast("Mapping[str, Any]", answer)
        return request

    def register_commands(self, commands: dict[str, str]) -> dict[str, str]:
        """See `smssh_register_commands`; returns the mapping that it was given."""
        self._manager.hook.smssh_register_commands(commands=commands)
        return commands

    def probes(self) -> list[Any]:
        """See `smssh_probes`; the lists of all plugins joined."""
        return [probe for answer in self._manager.hook.smssh_probes() for probe in answer]

    def checks(self) -> list[Any]:
        """See `smssh_checks`; the lists of all plugins joined."""
        return [check for answer in self._manager.hook.smssh_checks() for check in answer]


def _guarded(function: Callable[..., Any], plugin: str, hook: str) -> Callable[..., Any]:
    """The implementation, answering None (and naming itself in the log) where it fails or takes too long."""
    limit = LIMITS.get(hook)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            if limit is None:
                return _checked(hook, _unforked(function, arguments))
            return _checked(hook, within(limit, function, arguments))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - no plugin can fail a job
            _log.warning(
                "%s of plugin %s failed and is skipped: %s: %s", hook, plugin, type(error).__name__, error
            )
            _log.debug("%s of plugin %s", hook, plugin, exc_info=True)
            return None

    return call


def _checked(hook: str, answer: Any) -> Any:
    """The answer to a hook, as `hookspecs.py` has it; settings are parsed as those of a job.

    Raises:
        TypeError: it is of another type.
        SmsshError: it has a setting that is outside its limits.
    """
    kinds = ANSWERS.get(hook)
    if answer is None or kinds is None:
        return answer
    found: Any = answer
    if not isinstance(answer, kinds):
        raise TypeError(f"it answered a {type(answer).__name__}, not a {kinds[0].__name__}")
    item = ITEMS.get(hook)
    if item is not None:
        for each in found.values() if isinstance(found, abc.Mapping) else found:
            if not isinstance(each, item):
                raise TypeError(f"its answer has a {type(each).__name__}, not a {item.__name__}")
    return _settings_of(found) if hook == "smssh_configure" else found


def _settings_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    from .settings import SETTINGS, parsed

    known = {setting.field: setting.kind for setting in SETTINGS}
    for name in changes:
        if name not in known:
            raise TypeError(f"it answered {name!r}, which is not a field of Settings")
    return {name: parsed(known[name], name, value) for name, value in changes.items()}


def within(seconds: float, function: Callable[..., Any], arguments: Sequence[Any] = ()) -> Any:
    """What the function returns; one that hangs is left behind in its thread, which ends with the process.

    Raises:
        TimeoutError: it takes longer than `seconds`.
        BaseException: what it raised.
    """
    answers: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(_unforked(function, arguments))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="hook", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]


def _unforked(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Call it; a fork that it let come back ends here, instead of being a second supervisor."""
    process = os.getpid()
    try:
        return function(*arguments)
    finally:
        if os.getpid() != process:
            os._exit(0)


def _merge(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for answer in answers:
        for name, value in answer.items():
            merged.setdefault(name, value)
    return merged


def _entry_points() -> Iterable[Any]:
    """The entry points of the group, each name once.

    `PluginManager.load_setuptools_entrypoints` stops at the first that cannot be imported; here each stands
    for itself.
    """
    from importlib import metadata

    found = metadata.entry_points()
    if sys.version_info >= (3, 10):
        points = list(found.select(group=GROUP))
    else:  # a dict of groups before 3.10
        points = list(found.get(GROUP, ()))
    each: dict[str, Any] = {}
    for point in points:
        # The first on sys.path, where two have one name: a bundle's goes before the image's.
        each.setdefault(point.name, point)
    return each.values()
