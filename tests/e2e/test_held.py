"""Who keeps a hold from ending, as people meet it: through Session Manager, with the client's own commands."""

import json
import os
import signal
import sys

import pytest

from tests.waiting import LIMIT, until

from .machine import PATIENCE, SMSSH, TRAIN

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.needs("image environment", "ssh"),
]


def hold(machine):
    """How many are connected, now or at the last look of the hold, and until when it lasts."""
    found = json.loads(machine.smssh("status", TRAIN, "--json").stdout)
    return max(found["connected"], found["hold"]["connected"]), found["hold"]["deadline"]


def stop(process):
    process.terminate()
    process.communicate(timeout=LIMIT)


def end(script):
    """End a script and what it runs."""
    os.killpg(script.pid, signal.SIGTERM)
    script.communicate(timeout=LIMIT)


def test_only_people_keep_a_hold(held) -> None:
    machine, arn = held
    connected, deadline = hold(machine)
    assert connected == 0
    # They ask as fast as they can, at the same time.
    script = f"while :; do {' '.join(SMSSH)} status {TRAIN} || exit; done"
    asking = [machine.start("sh", "-c", script) for _ in range(2)]
    debugger = machine.start(
        *SMSSH, "debug", "churn", "--execution", arn, "--report", "report", "--timeout", "25s"
    )
    try:
        shown = debugger.communicate(timeout=PATIENCE)[0]
        assert "left held" in shown
        assert machine.smssh("hold", TRAIN).returncode == 0
        assert all(each.poll() is None for each in asking)
        assert hold(machine) == (0, deadline)
        # A proxy by which nobody logs in, and one whose key is refused.
        proxy = machine.start("sh", "-c", f"sleep 600 | {' '.join(SMSSH)} proxy {TRAIN}")
        assert proxy.stdout.readline().startswith("SSH-2.0-")
        refused = machine.smssh("connect", TRAIN, "-o", "PubkeyAuthentication=no", "--", "true", check=False)
        assert refused.returncode == 255
        assert proxy.poll() is None
        assert hold(machine) == (0, deadline)
        end(proxy)
        # A person, while the others go on asking: the moment counts.
        person = machine.start(*SMSSH, "connect", TRAIN, "--", "sleep 600")
        until(lambda: hold(machine)[0] == 1, seconds=PATIENCE)
        assert hold(machine)[1] > deadline
        stop(person)
        until(lambda: hold(machine)[0] == 0, seconds=PATIENCE)
        last = hold(machine)
        assert hold(machine) == last
        # A program's login is a person's.
        program = f"import smssh_plugin, time\nwith smssh_plugin.connect({TRAIN!r}): time.sleep(600)"
        person = machine.start(sys.executable, "-c", program)
        until(lambda: hold(machine)[0] == 1, seconds=PATIENCE)
        stop(person)
        until(lambda: hold(machine)[0] == 0, seconds=PATIENCE)
    finally:
        for each in asking:
            end(each)


def test_a_document_that_allows_one_port_alone(held) -> None:
    """Then a look is a login like any other; what it asks is answered all the same."""
    machine, _ = held
    port = json.loads(machine.smssh("status", TRAIN, "--json").stdout)["ssh"]["port"]
    content = {
        "schemaVersion": "1.0",
        "description": "SSH to one port",
        "sessionType": "Port",
        "parameters": {"portNumber": {"type": "String", "allowedPattern": f"^{port}$"}},
        "properties": {"portNumber": "{{ portNumber }}"},
    }
    machine.run(
        sys.executable,
        "-c",
        "import boto3, sys\n"
        "boto3.client('ssm').create_document(Name='One-Port', DocumentType='Session', Content=sys.argv[1])",
        json.dumps(content),
    )
    done = machine.smssh("status", TRAIN, "--json", SMSSH_SSH_DOCUMENT="One-Port")
    assert json.loads(done.stdout)["state"] == "held"
