"""When to hold: the points of `SMSSH_HOLD`, and `SMSSH_WAIT` with a duration."""

from __future__ import annotations

from ..hookspecs import Context, hookimpl


@hookimpl(trylast=True)
def smssh_hold(context: Context, point: str, exit_code: int | None) -> bool:  # noqa: ARG001 - the hook's signature
    """Hold where the settings say so; every other plugin is asked before."""
    return point in context.settings.hold or (point == "start" and context.settings.wait_seconds is not None)
