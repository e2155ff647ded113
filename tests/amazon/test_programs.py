"""Which of Amazon's programs the tests are run against."""

from __future__ import annotations

import pytest

from .programs import plugin_problem


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("1.2.677.0", ""),
        ("1.2.835.0", ""),
        ("1.2.889.0", "too new"),
        ("1.2.896.0", "too new"),
        ("1.10.0.1", "built without its version"),
        ("1.2.0.0", "built without its version"),
        ("", "reports no version"),
        ("The Session Manager plugin was installed successfully.", "reports no version"),
    ],
)
def test_the_version_of_the_plugin(version: str, problem: str) -> None:
    found = plugin_problem(version)
    assert problem in found if problem else not found
