"""`smssh doctor --live` as a user calls it, in an emulated account with the policies of `smssh setup`."""

import json
import re

import pytest

from smssh_plugin.live.steps import STEPS

from .machine import PATIENCE, image_with_asyncssh

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.needs("image environment", "ssh"),
]


def test_what_only_aws_can_settle_is_tried_in_an_account_with_the_policies_of_setup(machine) -> None:
    policies, account = machine.home / "policies", "123456789012"
    parts = [word for part in ("node", "job", "people") for word in ("--part", part)]
    machine.smssh("setup", *parts, "--account", account, "--format", "json", "--write", policies)
    image = image_with_asyncssh(machine.home / "image")
    exports = machine.smssh("local", "up", "--port", "0", "--iam", policies, "--image", image).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))
    try:
        shown = machine.smssh("doctor", "--live")
        assert f"nothing was tried: add --yes {account} to try it" in shown.stdout
        done = machine.smssh(
            *("doctor", "--live", "--jobs", "--image", "image", "--yes", account, "--json"), check=False
        )
        answers = {each["id"]: each["answer"] for each in json.loads(done.stdout)["steps"]}
        # The emulator has no price list, and does not throttle by itself.
        expected = {"live.prices": "could not be tried", "live.pacing": "no"}
        assert answers == {name: expected.get(name, "yes") for name in STEPS}, done.stdout
        again = json.loads(machine.smssh("doctor", "--live", "--json").stdout)
        assert again["left"] == []
    finally:
        machine.smssh("local", "down")
    machine.assert_nothing_left()
