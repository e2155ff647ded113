"""SIGKILL of anything of ours, at any moment: the job ends as without us, and nothing is left behind.

`make test-kills` does 500; SMSSH_TEST_KILLS says how many otherwise, SMSSH_TEST_SEED repeats a run.
"""

from __future__ import annotations

import collections
import os
import random

import pytest

from smssh_plugin.local.agent.installed import install
from tests.entrypoints.container import Container

from .kills import CELLS, Job, Plan

TOTAL = int(os.environ.get("SMSSH_TEST_KILLS", "20"))
SEED = os.environ.get("SMSSH_TEST_SEED") or str(random.SystemRandom().randrange(10**6))
SHARES = {name: TOTAL // len(CELLS) + (number < TOTAL % len(CELLS)) for number, name in enumerate(CELLS)}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The fake agent, and an nvidia-smi that takes its time: a child of the report's hook."""
    folder = tmp_path_factory.mktemp("programs")
    install(folder)
    slow = folder / "nvidia-smi"
    slow.write_text("#!/bin/sh\nsleep 0.7\n")
    slow.chmod(0o755)
    return folder


@pytest.mark.timeout(120 + 20 * TOTAL)
@pytest.mark.needs("image environment")
@pytest.mark.parametrize("name", [name for name, share in SHARES.items() if share])
def test_a_killed_job_ends_as_without_us(name, tmp_path, bundle, key, stack, programs) -> None:
    cell = CELLS[name]
    fallen: collections.Counter[str] = collections.Counter()
    expected = None
    number = 0
    while fallen.total() < SHARES[name]:
        assert number < 20 + 5 * SHARES[name], f"too few of ours to kill: {fallen}"
        plan = Plan.draw(cell, SEED, number)
        folder = tmp_path / str(number)
        folder.mkdir()
        container = Container(folder, bundle, key)
        job = Job(container, plan, stack.url, programs)
        try:
            if expected is None:
                expected = job.run_without_us()
            found = job.run()
            assert found == expected, f"SMSSH_TEST_SEED={SEED}, job {number}: {job.describe()}"
            job.assert_quiet()
        finally:
            job.ours.end()
            container.close()
        fallen.update(kill.victim for kill in plan.kills if kill.victim)
        number += 1
    print(f"{name}: seed {SEED}, {number} jobs, {fallen.total()} kills: {dict(sorted(fallen.items()))}")
