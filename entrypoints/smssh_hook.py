"""`smssh-hook`: the entry point of a container (`run`), and what a person inside it types (all the others).

Standard library only, and argparse instead of click: it must work in every image.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from ..durations import format_duration, parse_duration
from ..errors import ExitStatus, SmsshError
from ..terminal import block, line, put
from . import boot, init, supervisor_client

TYPE_CHECKING = False  # `smssh-hook run` is in the way of a job's start, and typing is not needed for it
if TYPE_CHECKING:
    from typing import Any, Mapping

    from ..supervisor import protocol
    from . import idle

ANSWER_LIMIT = 30.0
"""Seconds for the answer to everything but a retry that is waited for."""
LOGIN_LIMIT = 10.0
"""Seconds that a login waits until the job's code is kept as it is."""
START_LIMIT = 600.0
"""Seconds after which a placeholder that nobody could enter gives up."""
REMINDER_SECONDS = 60.0
PLACEHOLDER = """\
An entry point for a job that you only want to log in to. It ends with status 0 when nobody was logged in for --idle,
counted from the moment when a login is possible, and with status 4 when no login is possible.

A person is logged in while a connection is open: a shell, a copy, an IDE, or only port forwards. `smssh status` and
similar commands do not count. Traffic is not considered: keep-alives look like work, and a debugger at a breakpoint
looks like an empty connection. A connection whose other end is gone is noticed after about three minutes. A connection
that somebody forgot counts, so set --max if that would be expensive."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["run"]:
        return _run(arguments[1:])
    options = parser().parse_args(arguments)
    options.arguments = arguments
    try:
        return int(options.function(options))
    except SmsshError as error:
        sys.stderr.write(f"smssh-hook: {block(error)}\n")
        return int(error.status)
    except KeyboardInterrupt:
        return int(ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        return int(ExitStatus.FAILED)


def _run(command: list[str]) -> int:
    """`run [--] CMD...`; not argparse's business: what follows is another program's command line."""
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        sys.stderr.write("usage: smssh-hook run [--] COMMAND [ARGUMENT...]\n")
        return int(ExitStatus.USAGE)
    return init.main(command)


def parser() -> argparse.ArgumentParser:
    """The command line of all but `run`."""
    whole = argparse.ArgumentParser(
        prog="smssh-hook", description="Hold, retry and release this job's entry point."
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    commands.add_parser("run", help="run an entry point: `smssh-hook run -- CMD...`", add_help=False)
    status = commands.add_parser("status", help="show what runs, and what is held until when")
    report = commands.add_parser("report", help="show why the last attempt failed")
    placeholder = commands.add_parser(
        "placeholder", help="run an entry point that ends when nobody is logged in", description=PLACEHOLDER
    )
    placeholder.add_argument(
        "--idle",
        type=_seconds,
        default=1800,
        metavar="TIME",
        help="end after this time without a login (default: 30m)",
    )
    placeholder.add_argument(
        "--max",
        type=_seconds,
        default=0,
        metavar="TIME",
        help="end after this time, even if somebody is logged in",
    )
    # For programs: no line in the help.
    changes = commands.add_parser("changes")
    logged_in = commands.add_parser("logged-in")
    hold = commands.add_parser("hold", help="hold at the next failure or at the end")
    note = commands.add_parser("note", help="keep a text that `status --json` shows from now on")
    extend = commands.add_parser("extend", help="make the hold last longer")
    retry = commands.add_parser("retry", help="run the entry point again, and wait for it")
    release = commands.add_parser("release", help="end the hold: the job goes on")
    for command, function in (
        (placeholder, _placeholder),
        (status, _status),
        (report, _report),
        (changes, _changes),
        (logged_in, _logged_in),
        (hold, _hold),
        (note, _note),
        (extend, _extend),
        (retry, _retry),
        (release, _release),
    ):
        if command not in (placeholder, changes, logged_in):
            command.add_argument("--json", action="store_true", help="print the answer as JSON")
        command.set_defaults(function=function)
    note.add_argument("text", help="the text, of at most 4000 characters; it takes the place of the last one")
    extend.add_argument("duration", help="from now, for example 30m")
    retry.add_argument("--no-wait", action="store_true", help="do not wait for the attempt to end")
    release.add_argument(
        "--exit", type=_exit_status, metavar="CODE", help="the exit status of the job (default: its own)"
    )
    return whole


def _seconds(text: str) -> int:
    try:
        return int(parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _exit_status(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 255:
        raise argparse.ArgumentTypeError(f"{number} is outside 0 to 255")
    return number


def _ask(request: protocol.Request, seconds: float = ANSWER_LIMIT, starting: float = 2.0) -> Any:
    """The supervisor's answer, as the protocol has it for this request.

    Args:
        request: what it is asked.
        seconds: for the answer.
        starting: seconds that one which is starting is waited for.

    Raises:
        SmsshError: its error, or that it does not answer.
    """
    connection = supervisor_client.Connection.open(starting)
    if connection is None:
        raise SmsshError(
            "no supervisor runs in this container",
            hint=f"see its log, {boot.run_dir()}/supervisor.log" if boot.run_dir() else None,
            reference="no-supervisor",
            status=ExitStatus.UNREACHABLE,
        )
    try:
        answer = connection.ask(request, seconds)
    except OSError:
        raise SmsshError(
            "the supervisor ended before it answered: the job is over",
            reference="job-ended",
            status=ExitStatus.UNREACHABLE,
        ) from None
    except ValueError as odd:
        raise SmsshError(
            f"the supervisor's answer is not understood: {odd}",
            hint=f"see its log, {boot.run_dir()}/supervisor.log",
            reference="bad-answer",
            status=ExitStatus.FAILED,
        ) from None
    finally:
        connection.close()
    if answer is None:
        raise SmsshError("the supervisor does not answer", reference="no-answer", status=ExitStatus.TIMEOUT)
    if "error" in answer and isinstance(answer["error"], dict):
        error = answer["error"]
        raise SmsshError(
            error["message"],
            hint=error["hint"],
            reference=error["reference"],
            status=ExitStatus(error["status"]),
        )
    return answer


def _print(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, indent=1, sort_keys=True) + "\n")
    sys.stdout.flush()


def _placeholder(options: argparse.Namespace) -> int:
    """Stay while somebody is logged in; 0 as soon as nobody was for long enough."""
    if not boot.enabled(os.environ):
        raise SmsshError(
            "nobody could log in: SMSSH_ENABLE is not 1",
            hint="set SMSSH_ENABLE=1 in the job's environment, or submit it with with_ssh",
            reference="not-enabled",
            status=ExitStatus.USAGE,
        )
    run = boot.run_dir(create=True)
    if "SMSSH_ENTRY" not in os.environ and (run is None or not supervisor_client.supervisor_alive(run)):
        # Nothing is started yet: be init, and run this command as its child.
        return init.run([init.OWN_COMMAND, *options.arguments], "placeholder", boot.bundle_dir())
    ready: protocol.Readiness = _ask(
        {"op": "wait_ready", "seconds": START_LIMIT},
        START_LIMIT + ANSWER_LIMIT,
        supervisor_client.START_LIMIT,
    )
    if not ready["ready"]:
        raise SmsshError(
            "nobody can log in: {}".format(ready["error"] or f"not ready after {START_LIMIT:.0f} s"),
            reference="no-login",
            status=ExitStatus.UNREACHABLE,
        )
    from . import idle

    return _stay(idle.Watch(options.idle), idle.Watch(options.max) if options.max else None)


def _stay(unused: idle.Watch, whole: idle.Watch | None) -> int:
    """Look every second, say something each minute."""
    out = sys.stdout
    said, before = 0.0, -1
    while True:
        status: protocol.Status = _ask({"op": "status"})
        connected = int(status["connected"])
        if unused.over(connected):
            out.write("smssh: nobody is logged in any more: the placeholder ends\n")
            return 0
        if whole is not None and whole.over(0):
            out.write(f"smssh: time is up (--max): the placeholder ends, with {connected} connected\n")
            return 0
        if status["holds_end"] is not None and time.time() >= status["holds_end"]:
            out.write(
                f"smssh: the job's own limit is near: the placeholder ends, with {connected} connected\n"
            )
            return 0
        if bool(connected) != bool(before) or before < 0 or time.monotonic() - said >= REMINDER_SECONDS:
            said, before = time.monotonic(), connected
            left = "" if connected else f", ends in {format_duration(unused.left)}"
            out.write("smssh: {} | {} connected{}\n".format(line(status["connect"]), connected, left))
            out.flush()
        time.sleep(1.0)


def _status(options: argparse.Namespace) -> int:
    answer: protocol.Status = _ask({"op": "status"})
    if options.json:
        _print(answer)
        return 0
    lines = [
        ("job", "{host} of {job} ({kind})".format(**answer)),
        ("state", answer["state"] + (" at " + answer["point"] if answer["point"] else "")),
        ("attempt", "{}{}".format(answer["attempt"], _last(answer["exit_code"]))),
        ("code", answer["code_dir"]),
    ]
    hold = answer["hold"]
    if hold:
        left = int(hold["ends"] - time.time())
        lines.append(("hold", "{} left, {} connected".format(format_duration(left), hold["connected"])))
    for name, host in sorted(answer["hosts"].items()):
        ended = "" if host["exit_code"] is None else ", exit status {}".format(host["exit_code"])
        lines.append(("host", "{} {}, attempt {}{}".format(name, host["state"], host["attempt"], ended)))
    if answer["report"]:
        lines.append(("report", answer["report"]))
    if answer["error"]:
        lines.append(("error", answer["error"]))
    for name, value in lines:
        sys.stdout.write(f"{name:8} {line(value)}\n")
    return 0


def _last(code: int | None) -> str:
    return "" if code is None else f", last exit status {code}"


def _report(options: argparse.Namespace) -> int:
    report: protocol.Report = _ask({"op": "report"}, 60.0)
    if options.json:
        _print(report)
        return 0
    lines = ["attempt {} of {}{}".format(report["attempt"], report["job"], _last(report["exit_code"]))]
    if report.get("first_failed"):
        lines.append("first of the job's hosts to fail: {}".format(report["first_failed"]))
    lines.append("command: {}".format(line(" ".join(report["command"]))))
    if report.get("traceback"):
        lines += ["", report["traceback"].rstrip()]
    elif report.get("error"):
        lines += ["", report["error"]]
    if report.get("other_errors"):
        lines += ["", "also uncaught, in other processes:"]
        lines += [line("  {pid} {command}: {error}".format(**other)) for other in report["other_errors"]]
    if report.get("log_tail"):
        lines += ["", "last lines:", *("  " + line(each) for each in report["log_tail"][-20:])]
    for disk in report.get("disk") or ():
        free, total = (disk[name] / (1 << 30) for name in ("free_bytes", "total_bytes"))
        lines.append("disk {}: {:.1f} of {:.1f} GiB free".format(disk["path"], free, total))
    if report.get("gpu"):
        lines += ["", report["gpu"].rstrip()]
    put("\n".join(lines))
    return 0


def _changes(_: argparse.Namespace) -> int:
    """What people have changed in the code, for `smssh diff`; see `code_answer`."""
    from pathlib import Path

    from ..supervisor.code_answer import send

    status: protocol.Status = _ask({"op": "status"})
    run = boot.run_dir()
    assert run is not None  # the supervisor has just answered there
    send(Path(run), status["code_dir"], sys.stdout.buffer)
    return 0


def _logged_in(_: argparse.Namespace) -> int:
    """A login begins, and waits until the code is kept as it is now; see `code_changes`."""
    _ask({"op": "logged_in"}, LOGIN_LIMIT, 0.0)
    return 0


def _hold(options: argparse.Namespace) -> int:
    answer: protocol.HoldRequested = _ask({"op": "hold"})
    if options.json:
        _print(answer)
    else:
        sys.stdout.write("The job will be held at its next failure, or at the end.\n")
    return 0


def _note(options: argparse.Namespace) -> int:
    answer: protocol.Done = _ask({"op": "note", "text": options.text})
    if options.json:
        _print(answer)
    return 0


def _extend(options: argparse.Namespace) -> int:
    try:
        seconds = int(parse_duration(options.duration))
    except ValueError as error:
        raise SmsshError(str(error), reference="bad-duration", status=ExitStatus.USAGE) from None
    answer: protocol.Extended = _ask({"op": "extend", "seconds": seconds})
    if options.json:
        _print(answer)
    else:
        sys.stdout.write(f"{format_duration(answer['seconds'])} left.\n")
    return 0


def _retry(options: argparse.Namespace) -> int:
    limit = ANSWER_LIMIT if options.no_wait else 10.0**9
    answer: protocol.Retried = _ask({"op": "retry", "wait": not options.no_wait}, limit)
    if options.json:
        _print(answer)
    elif options.no_wait:
        sys.stdout.write("Attempt {} runs.\n".format(answer["attempt"]))
    else:
        sys.stdout.write("Attempt {attempt}: exit status {exit_code} after {seconds} s.\n".format(**answer))
    sys.stdout.flush()
    return 0 if options.no_wait else int(answer["exit_code"] or 0)


def _release(options: argparse.Namespace) -> int:
    answer: protocol.Released = _ask({"op": "release", "exit_code": options.exit})
    if options.json:
        _print(answer)
    elif answer["point"] == "start":
        sys.stdout.write("Released: the entry point starts.\n")
    else:
        sys.stdout.write("Released: the job ends with exit status {}.\n".format(answer["exit_code"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
