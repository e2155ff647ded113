"""The command line as a person and a script see it: separate processes, real exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smssh_plugin import __version__
from smssh_plugin.cli import main
from smssh_plugin.cli.commands import COMMANDS, PACKAGES
from smssh_plugin.client import known_hosts
from smssh_plugin.errors import ExitStatus
from tests.client.nodes import HOST_KEY, add_node, set_tag, use
from tests.local.service_harness import definition, step, training
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from tests.local.service_harness import Service

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = {
    "asyncio",
    "boto3",
    "botocore",
    "click",
    "jinja2",
    "paramiko",
    "rich",
    "sagemaker",
    "sshtunnel",
    "unidiff",
}


def smssh(
    *words: str, code: str | None = None, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "smssh_plugin.cli"]
    return subprocess.run(
        [sys.executable, *program, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        input=stdin,
        env={**os.environ, **environment},
    )


@pytest.fixture(autouse=True)
def _no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))


def imported(*words: str) -> set[str]:
    """The modules that a command line imports."""
    code = (
        "import sys\nfrom smssh_plugin.cli import main\nsys.stdout.write = lambda _: None\n"
        "try:\n  main()\nfinally:\n  sys.stderr.write('MODULES ' + ' '.join(sys.modules))"
    )
    return set(smssh(*words, code=code).stderr.partition("MODULES ")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["-h"], []])
def test_the_first_answers_import_nothing(words: list[str]) -> None:
    modules = imported(*words)
    assert "smssh_plugin.cli" in modules
    assert not modules & HEAVY


def test_the_commands_of_every_login_import_little() -> None:
    known_hosts.remember("job.training.sagemaker", HOST_KEY)
    modules = imported("known-hosts", "job.training.sagemaker")
    assert "smssh_plugin.client.known_hosts" in modules
    assert not modules & HEAVY
    assert not imported("proxy", "nonsense") & (HEAVY - {"botocore"})


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"local"}))
def test_every_command_has_help_and_its_line_in_the_table(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"Usage: smssh {name}")
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert re.search(rf"^  {name} +{re.escape(COMMANDS[name][2])}$", page, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"local"}))
def test_help_of_a_command_imports_neither_aws_nor_rich(name: str) -> None:
    assert not imported(name, "--help") & (HEAVY - {"click"})


def test_the_packages_that_commands_need_are_those_of_the_extra() -> None:
    extra = re.search(r"^cli = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert extra is not None
    assert sorted(re.findall(r'^  "(\w+)', extra[1], re.MULTILINE)) == list(PACKAGES)


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("click", ["list"]),
        ("jinja2", ["debug", "churn"]),
        ("unidiff", ["debug", "churn"]),
        ("websockets", ["proxy", "job.training.sagemaker", "--target", "mi-0123456789abcdef0"]),
    ],
)
def test_a_package_that_is_missing_is_named(package: str, words: list[str]) -> None:
    code = f"import sys\nsys.modules[{package!r}] = None\nfrom smssh_plugin.cli import main\nsys.exit(main())"
    done = smssh(*words, code=code, AWS_REGION="us-east-1")
    assert done.returncode == ExitStatus.USAGE
    assert done.stderr == (
        f"error: smssh needs the package {package}, which is not installed\n"
        'hint: install the commands: pip install "smssh-plugin[cli]"\n'
    )


def test_version() -> None:
    done = smssh("--version")
    assert (done.returncode, done.stdout) == (0, f"smssh {__version__}\n")


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["nonsense"], ExitStatus.USAGE, "error: No such command 'nonsense'."),
        (["connect"], ExitStatus.USAGE, "error: Missing argument 'ADDRESS'."),
        (["connect", "x", "--wait", "soon"], ExitStatus.USAGE, "'soon' is not a duration"),
        (["connect", "x"], ExitStatus.USAGE, "error: not an address: 'x'"),
        (["proxy"], ExitStatus.USAGE, "error: Missing argument 'ADDRESS'."),
        (["known-hosts", "x"], ExitStatus.USAGE, "error: not an address: 'x'"),
        (["status", "a.training.sagemaker"], ExitStatus.USAGE, "error: no AWS region is configured"),
        (["list"], ExitStatus.USAGE, "error: no AWS region is configured"),
        (["forward", "x", "9" * 5000], ExitStatus.USAGE, "is not a forward"),
        (["forward", "x", "80:65536"], ExitStatus.USAGE, "ports are numbers from 1 to 65535"),
        (["proxy", "x", "--port", "9" * 5000], ExitStatus.USAGE, "error: "),
        (["connect", "x", "--wait", "9" * 400], ExitStatus.USAGE, "is too long for a duration"),
        (["debug", "p", "--start", "--execution", "x"], ExitStatus.USAGE, "exclude each other"),
    ],
)
def test_errors_are_said_once(words: list[str], status: ExitStatus, error: str) -> None:
    done = smssh(*words)
    assert done.returncode == status
    assert done.stderr.count("error: ") == 1
    assert error in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ctrl_c_even_while_importing() -> None:
    code = (
        "import sys, smssh_plugin.cli as cli\n"
        "class Finder:\n  def find_spec(self, name, *_):\n    if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\nsys.exit(cli.main(['list']))"
    )
    done = smssh(code=code)
    assert (done.returncode, done.stderr) == (130, "")


def test_list(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(service, monkeypatch)
    assert main(["list"]) == 0
    assert capsys.readouterr() == ("", "no hosts are online in us-east-1\n")
    add_node(service, "My-Job", Step="Train", State="held")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ADDRESS", "STATE", "STEP", "OWNER", "AGE"]
    assert lines[1].split()[:3] == ["algo-1.My-Job.training.sagemaker", "held", "Train"]
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == 1
    assert found["hosts"][0]["address"] == "algo-1.My-Job.training.sagemaker"
    assert found["hosts"][0]["host_key"] == HOST_KEY


def test_list_shows_what_several_nodes_claim(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(service, monkeypatch)
    first, second = add_node(service, "My-Job", State="held"), add_node(service, "My-Job")
    set_tag(service, first, "SSHOwner", "ann")
    add_node(service, "My-Job", State="ended")
    add_node(service, "Other")
    for words in (["list"], ["list", "--owner", "ann"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert f"conflict ({first})" in out
        assert (f"conflict ({second})" in out) == (words == ["list"])
        assert out.count("conflict") == (2 if words == ["list"] else 1)
        assert "2 online nodes claim to be algo-1.My-Job.training.sagemaker: " in err
        assert f"{first} (owner 'ann', held)" in err
        assert f"{second} (owner 'unknown', state unknown)" in err
        assert "SMSSH_NODE=ID" in err
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["hosts"]
    claims = {tuple(sorted(one["claimed_by"])) for one in found if one["address"].startswith("algo-1.My-Job")}
    assert claims == {tuple(sorted((first, second)))}
    assert [one["claimed_by"] for one in found if one["job"] == "Other"] == [[]]


def test_a_reader_that_leaves(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    use(service, monkeypatch)
    for number in range(30):
        add_node(service, f"job-{number}")
    shell = f"{sys.executable} -m smssh_plugin.cli list --json | head -n 1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_known_hosts(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "algo-1.My-Job.training.sagemaker"
    known_hosts.remember(address, HOST_KEY)
    assert main(["known-hosts", address]) == 0
    assert capsys.readouterr().out == f"{address} {HOST_KEY}\n"
    use(service, monkeypatch)
    add_node(service, "other")
    assert main(["known-hosts", "other.training.sagemaker", "name"]) == 0
    assert capsys.readouterr().out == f"name {HOST_KEY}\n"
    add_node(service, "mute", HostKey="")
    assert main(["known-hosts", "mute.training.sagemaker"]) == ExitStatus.REFUSED
    assert capsys.readouterr().out == ""


def test_connect_without_ssh(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(service, monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert main(["connect", "job.training.sagemaker"]) == ExitStatus.UNREACHABLE
    assert "ssh is not installed" in capsys.readouterr().err


def test_connect_to_a_job_there_is_not(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(service, monkeypatch)
    assert main(["connect", "job.training.sagemaker"]) == ExitStatus.NOT_FOUND
    assert "there is no training job 'job' in us-east-1" in capsys.readouterr().err


def test_debug_starts_nothing_before_it_has_looked_at_the_fixes(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(service, monkeypatch)
    service.pipeline(definition(step("Train", "Training", training())))
    fixes = tmp_path / "fixes"
    start = ["debug", "pipe", "--start", "--report", str(tmp_path / "report"), "--fixes", str(fixes)]
    assert main(start) == ExitStatus.USAGE
    assert f"there is no folder {fixes}" in capsys.readouterr().err
    fixes.mkdir()
    (fixes / "Trian.patch").write_text("")
    assert main(start) == ExitStatus.NOT_FOUND
    assert "a step 'Trian', which the pipeline does not have" in capsys.readouterr().err
    executions = service.sagemaker.list_pipeline_executions
    assert executions(PipelineName="pipe")["PipelineExecutionSummaries"] == []
    (fixes / "Trian.patch").rename(fixes / "Train.patch")
    assert main([*start, "--report", str(fixes / "Train.patch" / "x")]) == ExitStatus.FAILED
    assert "cannot write the report" in capsys.readouterr().err
    assert executions(PipelineName="pipe")["PipelineExecutionSummaries"] == []
    assert main(start) == ExitStatus.OK
    (one,) = executions(PipelineName="pipe")["PipelineExecutionSummaries"]
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(f"  started {one['PipelineExecutionArn']}")


def test_debug_says_what_it_saw_also_where_the_report_cannot_be_written(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(service, monkeypatch)
    service.pipeline(definition(step("Train", "Training", training(Environment={"OUTCOME": "fail"}))))
    (tmp_path / "report.json").mkdir()  # what a check before cannot know
    assert (
        main(["debug", "pipe", "--start", "--json", "--report", str(tmp_path)]) == ExitStatus.PIPELINE_FAILED
    )
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == "Failed"
    assert f"error: cannot write the report to {tmp_path}" in shown.err


def test_ssh_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["ssh-config"]) == 0
    assert "Host *.sagemaker\n" in capsys.readouterr().out
    assert main(["ssh-config", "--write"]) == 0
    assert main(["ssh-config", "--write"]) == 0
    assert (tmp_path / ".ssh" / "config").read_text().count("Include") == 1


FULL = """
import errno, sys
from smssh_plugin.client import lookup, managed_nodes
def full(*_, **__): raise OSError(errno.ENOSPC, "No space left on device", "/full/file")
lookup.resolve = managed_nodes.list_nodes = full
from smssh_plugin.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "words", [["proxy", "a.training.sagemaker"], ["known-hosts", "a.training.sagemaker"], ["list"]]
)
def test_what_the_system_does_not_do_is_an_error_and_no_traceback(words: list[str]) -> None:
    done = smssh(*words, code=FULL)
    assert done.returncode == 1
    assert "/full/file: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
