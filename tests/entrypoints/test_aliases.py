"""sagemaker-ssh-helper's variables in a job of ours, and the hosts that SSH is wanted on."""

import json
import sys

import pytest

from smssh_plugin.entrypoints import boot
from tests.waiting import LIMIT, until

RUN = (sys.executable, "-m", "smssh_plugin.entrypoints.smssh_hook", "run", "--")


def test_its_switch_turns_us_on_and_the_log_says_so_once(container) -> None:
    """In an image that has the package: the bundle brings SMSSH_ENABLE itself."""
    del container.on["SMSSH_ENABLE"]
    script = container.script(
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nraise SystemExit(3)\n"
    )
    process = container.start(
        *RUN, "python", script, START_SSH="true", SSH_WAIT_TIME_SECONDS="0.0", SSH_OWNER_TAG="me"
    )
    status = container.wait_for("running")
    assert container.ssh(status, "echo ${START_SSH-unset} ${SMSSH_ENTRY-unset}").stdout == "unset unset\n"
    container.script("", name="go")
    assert process.wait(LIMIT) == 3
    lines = [line for line in container.output().splitlines() if "sagemaker-ssh-helper" in line]
    assert len(lines) == 1
    assert (
        "SSH_OWNER_TAG (SMSSH_OWNER), SSH_WAIT_TIME_SECONDS (SMSSH_WAIT), START_SSH (SMSSH_ENABLE)"
        in lines[0]
    )


@pytest.mark.parametrize("environ", [{"START_SSH": "false"}, {"START_SSH": "true", "SMSSH_ENABLE": "0"}, {}])
def test_off_is_off(container, environ) -> None:
    assert container.start(*RUN, "sh", "-c", "exit 3", on=False, **environ).wait(LIMIT) == 3
    assert not container.run_dir.exists()
    assert not boot.enabled(environ)


def test_its_log_setting(container) -> None:
    process = container.wrap("sh", "-c", "exit 3", SMSSH_HOLD="failure", SSH_LOG_TO_STDOUT="true")
    container.wait_for("held")
    until(lambda: "held (the entry point ended" in container.output(), what="the line that says so")
    container.hook("release")
    assert process.wait(LIMIT) == 3
    # The supervisor's own last word.
    assert "smssh: smssh.supervisor: stopped" in container.output()
    assert container.output().count("held (the entry point ended") == 1


@pytest.mark.parametrize("name", ["SMSSH_OWNER", "SSH_OWNER_TAG"])
def test_an_owner_that_no_tag_can_hold_lets_the_job_be(container, name) -> None:
    process = container.wrap(
        "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 3", SMSSH_STRICT="1", **{name: "ann, bob"}
    )
    said = f"no login is possible in this job: {name} is not usable: no tag can hold ','"
    until(lambda: said in container.output(), what="the complaint")
    container.script("", name="go")
    assert process.wait(LIMIT) == 3


@pytest.mark.parametrize(("host", "wanted"), [("algo-2", True), ("algo-3", False)])
def test_only_the_first_hosts(container, host, wanted) -> None:
    """SMSSH_STRICT has nothing to refuse on a host that nobody wants to log in to."""
    config = container.base / "input" / "config"
    config.mkdir(parents=True)
    config.joinpath("resourceconfig.json").write_text(
        json.dumps({"current_host": host, "hosts": ["algo-1", "algo-2", "algo-3"]})
    )
    process = container.wrap(
        "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 3", SSH_INSTANCE_COUNT="2", SMSSH_STRICT="1"
    )
    until(lambda: "attempt 1 of the entry point runs" in container.log(), what="the start")
    assert ("nobody can log in here" in container.log()) != wanted
    assert bool(container.path("ssh", "authorized_keys")) == wanted
    container.script("", name="go")
    assert process.wait(LIMIT) == 3
