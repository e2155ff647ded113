"""The pages that people follow from the first line to the last, followed: tutorial.md, quickstart.md and vpc.md.

What a page shows is what runs: its files are written, its commands run one after another in one shell, and what is
typed after the container's prompt is typed in a login there. What is left out is said here, by name.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests import needs
from tests.waiting import until

from .machine import IMAGE, PATIENCE, ROOT, client

if TYPE_CHECKING:
    import subprocess

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.needs("image environment", "ssh", "sshd", "SageMaker SDK v3"),
]
TIER = "/ssm/managed-instance/activation-tier"
PROMPT, IN_CONTAINER = "$ ", "root@algo-1:~# "
INSTALLED = re.compile(r"pip install |make environments$|\. \.venv/bin/activate$")
"""What has been done for the tests: the packages and environments are there."""

AWAITED = {"smssh list": " held ", "aws sagemaker list-pipeline-executions": '"Succeeded"'}
"""What the pages say to wait for, by the command that shows it."""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """The text before a block of code, its language and its content, in the page's order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"(.*?)^```(\w+)\n(.*?)^```\n", text, re.MULTILINE | re.DOTALL)
    assert len(found) == text.count("\n```") / 2
    return found


def commands(content: str) -> list[tuple[str, str]]:
    """The commands of a block with their prompts; a line that a backslash continues is one with the next."""
    found = []
    for line in content.replace("\\\n", "").splitlines():
        prompt = next((each for each in (PROMPT, IN_CONTAINER) if line.startswith(each)), None)
        assert prompt, f"no prompt: {line}"
        found.append((prompt, line.removeprefix(prompt)))
    return found


class Reader:
    """Somebody who follows a page.

    Attributes:
        times: the seconds that each command took, by the command.
    """

    def __init__(self, machine) -> None:
        self.machine = machine
        self.times: dict[str, float] = {}
        self._address = ""
        self._typed: list[str] = []
        tools = machine.home / "tools"
        tools.mkdir()
        for name, program in {"python": sys.executable, "aws": needs.program("aws")}.items():
            (tools / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (tools / "smssh").write_text(f'#!/bin/sh\nexec {sys.executable} -m smssh_plugin.cli "$@"\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        (machine.home / "shell").touch()
        machine.environ["PATH"] = f"{tools}:{machine.environ['PATH']}"

    def follow(self, page: str) -> None:
        for before, language, content in blocks(page):
            if language in ("python", "json"):
                name = re.findall(rf"`([\w-]+\.{language[:2]}\w*)`", before)[-1]
                (self.machine.home / name).write_text(content)
                continue
            assert language == "console"
            for prompt, command in commands(content):
                if prompt == PROMPT:
                    self.leave()
                    self.run(command)
                else:
                    self._typed.append(command)
        self.leave()

    def run(self, command: str) -> None:
        if INSTALLED.match(command):
            return
        if login := re.fullmatch(r"smssh connect (\S+)", command):
            self._address = login[1]
            return
        for asked, awaited in AWAITED.items():
            if command.startswith(asked):
                until(lambda: awaited in self.shell(command).stdout, seconds=PATIENCE)  # noqa: B023
                return
        # The usual port may be another one's on a machine that runs tests.
        done = self.shell(command.replace("smssh local up", "smssh local up --port 0"))
        if command == "smssh doctor":
            # The local emulator simulates no policies.
            assert done.returncode == 8, done.stdout
            assert " problem " not in done.stdout
            assert " crash " not in done.stdout
        else:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def leave(self) -> None:
        """Type in one login what was collected for it."""
        if self._typed:
            typed = "\n".join(["set -e", *self._typed])
            done = self.shell(f"smssh connect {self._address} -- {shlex.quote(typed)}")
            assert "exit status 0" in done.stdout, done.stdout + done.stderr
            self._typed = []

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the shell that all commands of a page run in."""
        started = time.monotonic()
        # What it exports and sets, the next command finds.
        script = f"set -a\n. ./shell\n{command}\nended=$?\nexport -p >shell\nexit $ended"
        done = self.machine.run("bash", "-c", script, check=False)
        self.times[command] = time.monotonic() - started
        return done


def use_emulator(machine, **variables: str) -> None:
    """Send all that the machine does to a local emulator: it stands for AWS."""
    exports = machine.smssh("local", "up", "--port", "0", "--image", IMAGE, **variables).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))


def test_the_quickstart_on_aws(machine) -> None:
    """Nothing but the endpoint, and the image behind its name, is not AWS's; `pytest -s` shows the times."""
    use_emulator(machine, MOTO_IAM_LOAD_MANAGED_POLICIES="true")
    iam, ssm = client(machine, "iam"), client(machine, "ssm")
    iam.create_group(GroupName="engineers")
    before = {role["RoleName"] for role in iam.list_roles()["Roles"]}
    ssm.reset_service_setting(SettingId=TIER)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):  # the page chooses a region
        del machine.environ[name]
    reader = Reader(machine)
    try:
        reader.follow("quickstart.md")
        print(f"quickstart.md: {sum(reader.times.values()):.0f} s")
        for command, seconds in reader.times.items():
            print(f"  {seconds:5.1f} s  {command}")
        # What it made is gone, except for the role of the jobs, and what moto leaves of a stack: its managed policies.
        assert {role["RoleName"] for role in iam.list_roles()["Roles"]} == before | {"MyJobs"}
        assert iam.list_attached_group_policies(GroupName="engineers")["AttachedPolicies"] == []
        assert ssm.get_service_setting(SettingId=TIER)["ServiceSetting"]["SettingValue"] == "standard"
    finally:
        machine.smssh("local", "down")
    machine.assert_nothing_left()


def test_the_endpoints_of_a_vpc(machine) -> None:
    """The endpoints, their group and their policy are made as docs/vpc.md says, in moto's EC2."""
    use_emulator(machine)
    ec2 = client(machine, "ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    groups = [
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        for name in ("endpoints", "job")
    ]
    reader = Reader(machine)
    found = {
        "VPC": vpc,
        "SUBNET": ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"],
        "ROUTES": ec2.describe_route_tables()["RouteTables"][0]["RouteTableId"],
        "ENDPOINT_GROUP": groups[0],
        "JOB_GROUP": groups[1],
    }
    reader.shell(" ".join(["export", *(f"{name}={value}" for name, value in found.items())]))
    try:
        reader.follow("vpc.md")
        made = {
            each["ServiceName"].rpartition(".")[2]: each
            for each in ec2.describe_vpc_endpoints()["VpcEndpoints"]
        }
        (rule,) = ec2.describe_security_groups(GroupIds=groups[:1])["SecurityGroups"][0]["IpPermissions"]
    finally:
        machine.smssh("local", "down")
    machine.assert_nothing_left()
    assert {name: each["VpcEndpointType"] for name, each in made.items()} == {
        "ssm": "Interface",
        "ssmmessages": "Interface",
        "s3": "Gateway",
    }
    assert all(made[name]["PrivateDnsEnabled"] for name in ("ssm", "ssmmessages"))
    policy = json.loads(made["s3"]["PolicyDocument"])
    assert [each["Sid"] for each in policy["Statement"]] == ["Bundle", "AgentPackages"]
    assert (rule["FromPort"], rule["UserIdGroupPairs"][0]["GroupId"]) == (443, groups[1])


def test_the_tutorial(machine) -> None:
    (machine.home / "examples").symlink_to(ROOT / "examples")
    (machine.home / ".venv-image").symlink_to(IMAGE)
    reader = Reader(machine)
    try:
        reader.follow("tutorial.md")
    finally:
        machine.smssh("local", "down", check=False)
    report = json.loads((machine.home / "report" / "report.json").read_text())
    assert report["status"] == "Succeeded"
    machine.assert_nothing_left()
