"""What a person sees of the job: its status, and the report of its last failure."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Callable, Mapping, cast

from .._version import __version__
from ..container.redaction import Redaction
from ..errors import SmsshError
from ..files import write_atomically
from ..hookspecs import Failure
from . import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from ..hookspecs import Context, Hold
    from ..plugins import Plugins
    from .attempts import Attempts
    from .clock import Clock
    from .hold import Holds
    from .lifecycle import Lifecycle
    from .peers import Peers

__all__ = ["Report", "status"]

REPORT_LIMIT = 2 << 20
"""Bytes of a report; it travels in one message."""

_log = logging.getLogger("smssh.report")


def status(
    context: Context,
    plugins: Plugins,
    lifecycle: Lifecycle,
    attempts: Attempts,
    holds: Holds,
    peers: Peers,
    report: Report,
    connected: Callable[[], int],
    note: str,
) -> protocol.Status:
    """`smssh-hook status --json`; see the reference for its fields."""
    with lifecycle.changed:
        hold, server, transport = holds.hold, context.server, context.transport
        return {
            "version": 1,
            "state": holds.state,
            "point": None if hold is None else hold.point,
            "job": context.job.name,
            "kind": context.job.kind,
            "host": context.job.host,
            "step": context.job.step,
            "attempt": attempts.number,
            "exit_code": attempts.exit_code,
            "attempts": [attempts.results[number] for number in sorted(attempts.results)],
            "hold": None if hold is None else _times(hold),
            "ssh": {
                "port": None if server is None else server.port,
                "control_port": None if server is None else server.control_port or None,
                "host_key": None if server is None else server.host_key,
                "user": None if server is None else server.user,
                "server": None if server is None else server.name,
            },
            "transport": {
                "name": None if transport is None else transport.name,
                "target": None if transport is None else transport.target,
            },
            "code_dir": context.code_dir,
            "report": None if report.path is None else str(report.path),
            "holds_end": holds.ends,
            "error": lifecycle.error,
            "note": note,
            "connect": context.connect_command,
            "connected": connected(),
            "hosts": {host: asdict(state) for host, state in peers.others.items()},
            "plugin_version": __version__,
            "hooks": plugins.names,
        }


def _times(hold: Hold) -> protocol.HoldTimes:
    times = asdict(hold)
    del times["point"]
    return cast("protocol.HoldTimes", times)


class Report:
    """The report of the last failed attempt.

    Args:
        context: the supervisor's context.
        plugins: the hooks.
        attempts: the entry point's attempts.
        peers: the job's other hosts.
        clock: the time.
    """

    def __init__(
        self, context: Context, plugins: Plugins, attempts: Attempts, peers: Peers, clock: Clock
    ) -> None:
        self.path: Path | None = None
        """The file that it was written to; None before a failure was held."""
        self.first_failed = ""
        """The host that failed first, as far as that was known when the last report was made."""
        self._context = context
        self._plugins = plugins
        self._attempts = attempts
        self._peers = peers
        self._clock = clock

    def write(self, failure: Failure) -> None:
        """Collect it from the hooks, and write it to a file of the run folder."""
        try:
            text = json.dumps(self._collect(failure, failing=True), indent=1)
            path = self._context.run_dir / "report.json"
            write_atomically(path, text)
            self.path = path
        except (OSError, TypeError, ValueError) as error:
            _log.warning("no report: %s", error)

    def read(self) -> protocol.Report:
        """The report of the last failed attempt, or one of how things stand now.

        Raises:
            SmsshError: the file has been removed.
        """
        if self.path is None:
            attempts = self._attempts
            return self._collect(
                Failure(
                    max(1, attempts.number),
                    tuple(attempts.command),
                    attempts.exit_code,
                    started=attempts.began,
                )
            )
        try:
            report: protocol.Report = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SmsshError(f"the report is not readable: {error}", reference="no-report") from None
        if "hosts" not in report:
            report.update(self._peers.report())
        return report

    def _collect(self, failure: Failure, *, failing: bool = False) -> protocol.Report:
        report: protocol.Report = {
            "version": 1,
            "job": self._context.job.name,
            "kind": self._context.job.kind,
            "host": self._context.job.host,
            "step": self._context.job.step,
            "attempt": failure.attempt,
            "time": self._clock.now(),
            "exit_code": failure.exit_code,
            "command": list(failure.command),
        }
        report.update(self._peers.report(failing=failing))
        self.first_failed = str(report.get("first_failed") or "")
        for name, value in self._plugins.collect_report(self._context, failure).items():
            report.setdefault(name, value)
        return _bounded(report, Redaction(self._context.environment))


def _bounded(report: Mapping[str, Any], redaction: Redaction) -> protocol.Report:
    """The report without secrets, in at most REPORT_LIMIT bytes and of what JSON has.

    `shortened` names what was cut for that; a section that is not JSON is left out.
    """
    kept: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, section in report.items():
        try:
            value = redaction.everything({name: section})[name]
            sizes[name] = len(json.dumps(value, allow_nan=False))
            kept[name] = value
        except (TypeError, ValueError, RecursionError) as error:  # noqa: PERF203 - a dozen sections
            _log.warning("the report goes without %s: %s", name, error)
    shortened = set()
    while sum(sizes.values()) > REPORT_LIMIT:
        name = max(sizes, key=lambda each: sizes[each])
        value = kept[name]
        # Of output the end says most.
        if isinstance(value, str) and len(value) > 1:
            kept[name] = value[len(value) // 2 :]
        elif isinstance(value, list) and len(value) > 1:
            kept[name] = value[len(value) // 2 :] if name == "log_tail" else value[: len(value) // 2]
        else:
            kept[name] = None
        sizes[name] = protocol.size(kept[name])
        shortened.add(name)
    return {**kept, "shortened": sorted(shortened)} if shortened else kept
