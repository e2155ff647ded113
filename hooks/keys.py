"""Who may log in: the public keys that the settings name, or say where they are kept."""

from __future__ import annotations

from typing import Any

from ..aws.s3_address import account_of_arn
from ..container import authorized_keys, aws_calls
from ..errors import SmsshError
from ..hookspecs import Context, hookimpl
from ..key_sources import is_source, read_source


@hookimpl
def smssh_authorized_keys(context: Context) -> list[str]:
    """The keys of `SMSSH_AUTHORIZED_KEYS` and of the sources that it names, without other lines."""
    keys = []
    for entry in context.settings.authorized_keys:
        for line in _lines(context, entry):
            try:
                authorized_keys.parse(line)
            except ValueError as error:  # noqa: PERF203 - a few keys
                # Not the line itself: it may be anything, a private key for one.
                context.log.warning(
                    "a line of SMSSH_AUTHORIZED_KEYS is left out: %s (%d characters)", error, len(line)
                )
            else:
                keys.append(line)
    return keys


def _lines(context: Context, entry: str) -> list[str]:
    """The entry itself, or the lines of the source that it is; none where that cannot be read."""

    def client(service: str) -> Any:
        return aws_calls.client(service, aws_calls.region(context))

    try:
        # An ARN says the account; not every kind of job has one.
        account = account_of_arn(context.job.arn)
        known = (lambda: account) if account else None
        return read_source(entry, client, known) if is_source(entry) else [entry]
    except SmsshError as error:
        context.log.warning("%s", error)
        context.say("smssh: {}".format(str(error).replace("\n", " ")))
        return []
