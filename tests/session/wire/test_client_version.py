"""The version that our client announces: AWS supports it, and it is not forgotten."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import smssh_plugin
from smssh_plugin.session.wire.client_version import CLIENT_VERSION, MINIMUM, RELEASED

DAYS = 500
"""AWS's minimum was eight months old when its CLI began to warn, and a year old when it was announced."""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_aws_supports_it() -> None:
    assert _numbers(CLIENT_VERSION) >= _numbers(MINIMUM)


def test_it_is_not_too_old() -> None:
    age = (datetime.now(UTC).date() - RELEASED).days
    print(f"session-manager-plugin {CLIENT_VERSION}, which our client announces, is {age} days old")
    assert age < DAYS, (
        f"the announced version {CLIENT_VERSION} is {age} days old, and AWS stops supporting old ones: read the "
        "release history of session-manager-plugin since then, and raise it in session/wire/client_version.py"
    )


def test_it_is_said_in_one_place() -> None:
    package = Path(smssh_plugin.__file__).parent
    said = re.compile(r"""["']1\.2\.\d{3,4}\.0["']""")
    places = [path.name for path in package.rglob("*.py") if said.search(path.read_text(encoding="utf-8"))]
    assert places == ["client_version.py"]
