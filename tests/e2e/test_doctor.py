"""`smssh doctor` on a job that really runs, and is held, with SSH."""

import json

import pytest

from .machine import PATIENCE, TRAIN

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.needs("image environment", "ssh"),
]


def test_a_job_that_can_be_entered_has_no_problem(held) -> None:
    machine, _ = held
    machine.smssh("ssh-config", "--write")
    done = machine.smssh("doctor", "--job", TRAIN, "--pipeline", "churn", "--json", check=False)
    found = {each["id"]: each for each in json.loads(done.stdout)["checks"]}
    assert {each["outcome"] for each in found.values()} <= {"ok", "hint", "cannot tell"}, done.stdout
    assert not [each for each in found.values() if each["waits_for"]]
    for name in ("laptop.ssh-config", "laptop.keys", "job.node", "job.ping", "job.claimants", "job.tags"):
        assert found[name]["outcome"] == "ok", found[name]
    assert machine.smssh("connect", TRAIN, "--", "true").returncode == 0
