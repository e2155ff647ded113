"""What people do with a step that is held, through Session Manager and with the client's own commands."""

import json
import os
import signal
import sys

import pytest

from tests.waiting import LIMIT, until

from .machine import CHURN, PATIENCE, SMSSH, TRAIN, client, node

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
    # They ask again and again, at the same time; each answer leaves a byte.
    answers = [machine.home / f"answers-{number}" for number in range(2)]
    asking = []
    for file in answers:
        file.touch()
        script = f"while {' '.join(SMSSH)} status {TRAIN}; do printf . >>{file}; sleep 1; done"
        asking.append(machine.start("sh", "-c", script))
    debugger = machine.start(*SMSSH, "debug", "churn", "--execution", arn, "--report", "report")
    try:
        assert any("left held" in line for line in debugger.stdout)
        before = [file.stat().st_size for file in answers]
        until(
            lambda: all(file.stat().st_size >= size + 3 for file, size in zip(answers, before, strict=True)),
            seconds=PATIENCE,
        )
        assert debugger.poll() is None
        os.killpg(debugger.pid, signal.SIGINT)
        debugger.communicate(timeout=LIMIT)
        assert debugger.returncode == 130
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
        # Who is connected is counted at once, the hold gets longer at its next look.
        until(lambda: (found := hold(machine))[0] == 1 and found[1] > deadline, seconds=PATIENCE)
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


def test_a_document_that_allows_one_port_alone(kept) -> None:
    """Then a look is a login like any other; what it asks is answered all the same."""
    machine, _ = kept
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


def test_a_wrong_key_is_refused(kept) -> None:
    machine, _ = kept
    folder, away = machine.home / "smssh", machine.home / "away"
    away.mkdir()
    names = ("id_ed25519", "id_ed25519.pub")
    for name in names:
        (folder / name).rename(away / name)
    try:
        refused = machine.smssh("connect", TRAIN, "--", "true", check=False)
    finally:
        for name in names:
            (away / name).replace(folder / name)

    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_a_wrong_host_key_is_refused(kept) -> None:
    machine, arn = kept
    impostor = machine.home / "impostor"
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", impostor)
    ssm = client(machine, "ssm")
    resource = {"ResourceType": "ManagedInstance", "ResourceId": node(machine, arn, "Train")["target"]}
    tags = ssm.list_tags_for_resource(**resource)["TagList"]
    (announced,) = (tag for tag in tags if tag["Key"] == "SMSSHHostKey")
    other = {"Key": "SMSSHHostKey", "Value": impostor.with_suffix(".pub").read_text().strip()}
    ssm.add_tags_to_resource(**resource, Tags=[other])
    try:
        refused = machine.smssh("connect", TRAIN, "--", "true", check=False)
    finally:
        ssm.add_tags_to_resource(**resource, Tags=[announced])

    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


REACH_A_SERVER = """
import time
import urllib.request

import smssh_plugin

FREE = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
with smssh_plugin.connect("Train.churn.pipeline.sagemaker") as job:
    port = int(job.run(f'python3 -c "{FREE}"').text)
    job.run(f'cd "$SMSSH_CODE_DIR"; nohup python3 -m http.server {port} --bind 127.0.0.1 </dev/null >/dev/null 2>&1 &')
    with job.forward(port) as tunnel:
        page = f"http://127.0.0.1:{tunnel.local_port}/train.py"
        for attempt in range(100):
            try:
                print(urllib.request.urlopen(page, timeout=5).read().decode())
                break
            except OSError:
                time.sleep(0.1)
"""


def test_a_server_in_the_held_job_is_reached_from_python(kept) -> None:
    machine, _ = kept
    page = machine.run(sys.executable, "-c", REACH_A_SERVER).stdout
    assert page.strip() == (CHURN / "train" / "train.py").read_text().strip()


def test_ctrl_c_in_the_debugger_leaves_the_step_held(kept) -> None:
    machine, arn = kept
    debugger = machine.start(*SMSSH, "debug", "churn", "--execution", arn, "--keep", "--report", "report")
    for line in debugger.stdout:
        if "held" in line:
            break
    os.killpg(debugger.pid, signal.SIGINT)
    rest = debugger.communicate(timeout=60)[0]
    assert debugger.returncode == 130, rest
    assert node(machine, arn, "Train")["state"] == "held"
    assert json.loads((machine.home / "report" / "report.json").read_text())["status"] != "Succeeded"


def test_a_job_that_can_be_entered_has_no_problem(kept) -> None:
    machine, _ = kept
    machine.smssh("ssh-config", "--write")
    done = machine.smssh("doctor", "--job", TRAIN, "--pipeline", "churn", "--json", check=False)
    found = {each["id"]: each for each in json.loads(done.stdout)["checks"]}
    assert {each["outcome"] for each in found.values()} <= {"ok", "hint", "cannot tell"}, done.stdout
    assert not [each for each in found.values() if each["waits_for"]]
    for name in ("laptop.ssh-config", "laptop.keys", "job.node", "job.ping", "job.claimants", "job.tags"):
        assert found[name]["outcome"] == "ok", found[name]
    assert machine.smssh("connect", TRAIN, "--", "true").returncode == 0
