"""The local mode of the real SDKs: its jobs are as they are without us, and one warning says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.submit.sdks.environments import NEWEST, PATIENCE, python_of

from .test_sdks import run

pytestmark = pytest.mark.timeout(2 * PATIENCE)

CASES = (
    *("session_enabled", "client_enabled", "session_switched_off", "boto_session_enabled"),
    *("pipeline_decorated", "steps_decorated", "step_of_another_session", "pipeline_for_both"),
    *(
        "pipeline_given_to_a_local_session",
        "definition_looked_at",
        "trainer_in_a_container",
        "process_enabled",
    ),
)
SILENT = {"session_switched_off", "boto_session_enabled", "trainer_in_a_container", "process_enabled"}
"""Off, or on for what is made with boto3 clients: local mode makes none of the calls."""


@pytest.fixture(scope="module", params=NEWEST)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("local-mode")
    return run("local_mode.py", python_of(request.param), folder, {})


def test_every_case_is_looked_at(outcome: dict[str, Any]) -> None:
    assert tuple(outcome["cases"]) == CASES


@pytest.mark.parametrize("case", CASES)
def test_the_job_is_as_without_us_and_one_warning_says_so(outcome: dict[str, Any], case: str) -> None:
    if case == "trainer_in_a_container" and not outcome["v3"]:
        return  # v3's alone
    found = outcome["cases"][case]
    (before, said_before), (after, said) = found["before"], found["after"]
    assert before, "nothing ran"
    assert after == before
    assert said_before == []
    if case in SILENT:
        assert said == []
    else:
        (text,) = said
        assert "local mode of the SageMaker SDK gets no SSH: its jobs run in Docker on this machine" in text
