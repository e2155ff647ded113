"""Write a line into the job's log for each event that a person may want to act on."""

from ..hookspecs import Context, hookimpl

SILENT = frozenset(["running", "failed", "ended"])
"""Events that the job's own log shows anyway."""


@hookimpl
def smssh_notify(context: Context, event: str, message: str) -> None:
    """Write the event's message, which says how to connect or what becomes of a hold."""
    if not context.settings.log_to_stdout or event in SILENT:
        context.log.info("%s", message)
    if event not in SILENT:
        context.say("smssh: " + message)
