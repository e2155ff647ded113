import logging
import os
from pathlib import Path

import pytest
import smssh_triage

from smssh_plugin.hookspecs import Context, Failure, Job
from smssh_plugin.settings import Settings


@pytest.fixture
def context(tmp_path):
    def make(**environment):
        said = []
        made = Context(
            Settings(),
            Job("job", "training", "algo-1"),
            Path(tmp_path),
            {"PATH": os.environ["PATH"], **environment},
            code_dir="/",
            python_path="",
            log=logging.getLogger("test"),
            say=said.append,
        )
        return made, said

    return make


@pytest.mark.parametrize(
    ("environment", "exit_code", "answer"),
    [
        ({}, 137, False),
        ({}, 1, None),
        ({"TRIAGE_NO_HOLD": "3, 7"}, 7, False),
        ({"TRIAGE_NO_HOLD": "3, 7"}, 137, None),
        ({"TRIAGE_NO_HOLD": "some"}, 1, None),
    ],
)
def test_hold(context, environment, exit_code, answer):
    made, said = context(**environment)
    assert smssh_triage.smssh_hold(made, "failure", exit_code) is answer
    assert bool(said) == (answer is False)
    assert smssh_triage.smssh_hold(made, "end", exit_code) is None


def test_report(context):
    made, _ = context()
    packages = smssh_triage.smssh_collect_report(made, Failure(1, ("train",), 1))["packages"]
    assert all(isinstance(name, str) and version for name, version in packages.items())
