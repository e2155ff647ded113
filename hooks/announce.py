"""Tell the job's log how to connect, and what becomes of a hold."""

from ..hookspecs import Context, hookimpl

SILENT = frozenset(["running", "failed", "ended"])
"""Events that the job's own log shows anyway."""


@hookimpl
def smssh_notify(context: Context, event: str, message: str) -> None:
    """One line in the job's log for each event that a person may want to act on."""
    if not context.settings.log_to_stdout or event in SILENT:
        context.log.info("%s", message)
    if event not in SILENT:
        context.say("smssh: " + message)
