"""Which failures are worth a hold, and which packages the job ran with."""

from __future__ import annotations

import json
import subprocess

from smssh_plugin import hookimpl

NO_HOLD = "TRIAGE_NO_HOLD"
DEFAULT = "137"
LIST = """
import json
from importlib import metadata
print(json.dumps({each.metadata["Name"]: each.version for each in metadata.distributions()}))
"""


def not_worth_it(environment):
    """The exit statuses that are not held; words that are not numbers are left out."""
    words = environment.get(NO_HOLD, DEFAULT).split(",")
    return {int(word) for word in words if word.strip().isdigit()}


@hookimpl
def smssh_hold(context, point, exit_code):
    """Say no where a hold is not worth its money, and nothing otherwise: smssh's own rules decide then."""
    if point == "failure" and exit_code in not_worth_it(context.environment):
        context.say(f"triage: exit status {exit_code} is not held ({NO_HOLD})")
        return False
    return None


@hookimpl
def smssh_collect_report(context, failure):
    """The section `packages` of the report; of the job's Python, which need not be the supervisor's."""
    done = subprocess.run(
        ["python3", "-c", LIST],
        # The environment of logins: without what would start smssh once more.
        env=context.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    return {"packages": json.loads(done.stdout)}
