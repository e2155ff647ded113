"""One source for one thing: what a module of the package does for all of it is done nowhere else."""

import re

import pytest

from tests.test_rooms import MODULES, SOURCE

ONE_SOURCE = {
    "a unit of time is divided by or multiplied with": (
        r"""(?:/|//|%) ?(?:60|3600|86400)\b|["']m["']: ?60""",
        {
            "smssh_plugin.durations",
            "smssh_plugin.container.cost",  # a price is one an hour
            "smssh_plugin.costs.spent",  # the same
            "smssh_plugin.costs.waiting",  # the same
            "smssh_plugin.setting_values",  # the longest duration, as a person types it
            "smssh_plugin.local.sessions.channels",  # the service's own field is in minutes
        },
    ),
    "/proc/PID/stat is read": (
        r"""/stat\b["'](?!\))|["']stat["']\)""",
        {"smssh_plugin.processes", "smssh_plugin.entrypoints.boot"},
    ),
    "a file takes the place of another": (
        r"""os\.(?:replace|rename)\(|\.rename\(|\.replace\([\w.]+\)|mkstemp|NamedTemporaryFile""",
        {
            "smssh_plugin.files",
            "smssh_plugin.client.certificates",  # what ssh-keygen has made
            "smssh_plugin.submit.bundle.agent",  # what was downloaded
            "smssh_plugin.submit.bundle.wheels",  # what pip has downloaded
            "smssh_plugin.submit.request.wrapper",  # a line of Python that stands in requests
            "smssh_plugin.supervisor.socket",  # a socket
            "smssh_plugin.entrypoints.boot",  # imports nothing of ours
            "smssh_plugin.entrypoints.hide",  # a folder
            "smssh_plugin.entrypoints.retry",  # another name for what is there
        },
    ),
    "the setting of the tier is named": (
        r"""managed-instance/activation-tier""",
        {
            "smssh_plugin.aws.tier",
            "smssh_plugin.local.sessions.session_service",  # the emulator shares no code with its clients
        },
    ),
    "errors of AWS are told apart": (
        r"""["'](?:ThrottlingException|RequestExpired|ExpiredToken)["']|us\|eu\|ap|AWS_SESSION_TOKEN["']\)""",
        {
            "smssh_plugin.aws.json_client",
            # The emulator shares no code with its clients.
            "smssh_plugin.local.pipelines.retries",
            "smssh_plugin.local.sessions.control_routes",
            "smssh_plugin.local.signatures",
        },
    ),
}
"""What is done, how that looks, and who does it."""


@pytest.mark.parametrize("what", ONE_SOURCE)
def test_it_is_done_in_one_place(what: str) -> None:
    pattern, homes = ONE_SOURCE[what]
    found = {name for name, path in MODULES.items() if re.search(pattern, SOURCE.texts[path])}
    assert found == homes
