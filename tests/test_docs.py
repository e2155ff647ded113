"""The documentation is what the code is: generated pages up to date, named tests and linked files there."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

import smssh_plugin
from smssh_plugin import SSHOptions, hookspecs, settings
from smssh_plugin.container import ssm_agent
from smssh_plugin.live import show
from smssh_plugin.live.steps import STEPS
from smssh_plugin.plugins import Plugins
from smssh_plugin.submit import inject
from smssh_plugin.submit.bundle.agent import Agent
from tests import needs
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
HOOKS = [name for name in vars(hookspecs) if name.startswith("smssh_")]
PAGES = sorted(DOCS.rglob("*.md"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # dev/docs.py puts its own folder there
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator():
    return load(ROOT / "dev" / "docs.py")


@pytest.mark.parametrize(
    "name",
    [
        "aws.md",
        "causes.md",
        "commands.md",
        "doctor.md",
        "hooks.md",
        "iam.md",
        "options.md",
        "requests.md",
        "settings.md",
    ],
)
def test_a_generated_page_is_up_to_date(generator, name) -> None:
    assert (DOCS / name).read_text() == generator.pages()[name], "run .venv/bin/python dev/docs.py"


def test_the_page_of_commands_does_not_depend_on_what_has_run_before() -> None:
    # In a process of its own: click keeps a command's help option once it is made.
    program = """if True:
        import command_docs
        from click.testing import CliRunner
        assert CliRunner().invoke(command_docs.group, ["forward", "-h"]).exit_code == 0
        print(command_docs.page(), end="")
    """
    command = [sys.executable, "-c", program]
    printed = subprocess.run(
        command, cwd=ROOT / "dev", capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert printed.stdout == (DOCS / "commands.md").read_text()


def test_every_hook_argument_and_field_is_on_the_page() -> None:
    page = (DOCS / "hooks.md").read_text()
    for name in HOOKS:
        section = re.search(rf"^### `{name}\(([^)\n]*)\)`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        assert section, name
        assert f"def {name}(" in section[2]
        hook = getattr(hookspecs, name)
        assert (
            f"Limit: {hook.smssh_limit:g} s for each plugin." if hook.smssh_limit else "limit"
        ) in section[2]
        assert f"Since version {hook.smssh_since}.\n" in section[2]
        assert ("The first result counts" in section[2]) == hook.smssh_spec["firstresult"]
        for argument in filter(None, section[1].split(", ")):
            assert re.search(rf"^- `{argument}` \(.+\): .+", section[2], re.MULTILINE), (name, argument)
    for kind in (hookspecs.Context, hookspecs.Job, hookspecs.Failure, hookspecs.Hold):
        for field in kind.__dataclass_fields__:
            assert f"\n- `{field}` (" in page, field


def test_every_setting_is_on_the_page() -> None:
    page = (DOCS / "settings.md").read_text()
    for setting in settings.SETTINGS:
        key = "-" if setting.variable in settings.EARLY else f"`{setting.field}`"
        assert f"\n| `{setting.variable}` | {key} |" in page
        assert all(f"`{name}`" in page for name in setting.deprecated)


def test_every_option_is_on_the_page_with_all_that_it_takes() -> None:
    rows = {
        cells[1].strip(" `"): cells
        for line in (DOCS / "options.md").read_text().splitlines()
        if len(cells := re.split(r"(?<!\\)\|", line)) == 7
    }
    for option in settings.OPTIONS.values():
        _, _, variables, default, values, meaning, _ = rows[option.name]
        said = [each.variable for each in settings.SETTINGS if each.field == option.setting]
        assert option.name == "extra" or re.findall(r"SMSSH_\w+", variables) == said
        assert all(len(cell.strip()) > 1 for cell in (default, values, meaning)), option.name
    for name in ("hold_seconds", "hold_max_seconds", "idle_seconds", "wait", "hosts", "owner"):
        assert [each.limits for each in settings.SETTINGS if each.field == name] == [rows[name][4].strip()]


def read_from_the_environment(path: Path) -> set[str]:
    """The SMSSH_* variables that a module reads from `os.environ`, by name or by a constant of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "environ.get"):
            name = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("os.environ", "environ"):
            name = node.slice
        else:
            continue
        found.add(name.value if isinstance(name, ast.Constant) else constants.get(ast.unparse(name)))
    return {name for name in found if isinstance(name, str) and name.startswith("SMSSH_")}


def test_every_variable_of_the_machine_is_on_the_page(generator) -> None:
    package = ROOT / "smssh_plugin"
    ours = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] != "local"]
    assert set().union(*map(read_from_the_environment, ours)) == set(generator.OF_MACHINE)


def test_what_is_read_before_the_options_is_said_to_be() -> None:
    entrypoints = ROOT / "entrypoints"
    early = read_from_the_environment(entrypoints / "boot.py") | read_from_the_environment(
        entrypoints / "chain.py"
    )
    assert early & {setting.variable for setting in settings.SETTINGS} == set(settings.EARLY)


def test_an_addition_without_a_reason_is_an_error(generator, monkeypatch) -> None:
    """So does a reason for what is not added, a file of the bundle or an option that is not explained."""
    docs = generator.request_docs
    for table in (docs.REASONS, docs.FILES):
        for name in list(table):
            with monkeypatch.context() as patch:
                patch.delitem(table, name)
                with pytest.raises(ValueError, match=r"nothing in|differ"):
                    docs.page()
        with monkeypatch.context() as patch:
            patch.setitem(table, "gone", "")
            with pytest.raises(ValueError, match="gone"):
                docs.page()


def test_an_image_with_our_package_gets_the_variables_on_the_page(generator, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path))
    pinned = {name: generator.request_docs.BAKED[name] for name in ("agent_version", "agent_sha256")}
    monkeypatch.setattr(inject, "agent_for", lambda *_: Agent(pinned))
    (sample,) = (each for each in generator.request_docs.SAMPLES if each.asked.get("launcher") == "baked")
    options = SSHOptions(launcher="baked", hold=("failure",))
    attachment = inject.Attachment(sample.kind, "Step", options)
    changed = inject.inject(attachment, sample.request, lambda: boto3.Session(region_name="us-east-1"))
    page = (DOCS / "requests.md").read_text().partition(f"### {sample.title}")[2].partition("\n### ")[0]
    assert re.findall(r"`Environment\.(SMSSH_\w+)`", page) == list(changed["Environment"])


def test_every_call_of_aws_has_its_permission(generator) -> None:
    docs = generator.request_docs
    for rows, places in ((docs.JOB, docs.IN_CONTAINER), (docs.SUBMITTER, docs.AT_SUBMIT)):
        assert {call for row in rows for call in row.calls} == docs.calls(places)
    ours = {call for row in (*docs.CLIENT, *docs.CLEANUP, *docs.ADMIN) for call in row.calls}
    assert ours == docs.operations()
    assert {call for row in docs.COSTS for call in row.calls} >= docs.operations(("costs",))
    users = {call for row in (*docs.CLIENT, *docs.CLEANUP) for call in row.calls}
    assert {call for row in docs.DOCTOR for call in row.calls} == docs.operations(("doctor",)) - users
    found = docs.operations(("live",)) - {"register_managed_instance"}  # agents call it without credentials
    assert {*(call for row in docs.LIVE for call in row.calls), *docs.LIVE_TRIALS} == found
    named = {action for row in docs.LIVE for action in row.action.split(", ")}
    plan = show.plan_as_json(list(STEPS.values()), [], show.Bill())
    assert set(plan["actions"]) == named


def rows_of(page, title):
    """The rows of a table of permissions: action -> resources."""
    found = {}
    for line in page.partition(f"\n### {title}\n")[2].partition("\n### ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and cells[0].startswith("`"):
            for action in re.findall(r"`([\w-]+:[\w*]+)`", cells[0]):
                found.setdefault(action, []).append(cells[1])
    return found


def test_the_permissions_on_the_page_let_people_in() -> None:
    """What AWS's own policies for hybrid nodes and their users have, and none of what is not needed or never true."""
    page = (DOCS / "requests.md").read_text()
    person, job = rows_of(page, "Who logs in or debugs"), rows_of(page, "The job's role")
    node = rows_of(page, "The role of the managed node")
    assert person["ssmmessages:OpenDataChannel"] == ["`*`"]
    # A statement for the nodes, which may have a condition on their tags; one for the document, which has no tags.
    assert [("managed instances" in each, "document" in each) for each in person["ssm:StartSession"]] == [
        (True, False),
        (False, True),
        (False, False),  # hosts of SageMaker's own remote debugging
    ]
    assert "sagemaker-training-job:*" in person["ssm:StartSession"][-1]
    for action in ("ssm:TerminateSession", "ssm:ResumeSession"):
        assert person[action] == [
            "`*`, where `ssm:resourceTag/aws:ssmmessages:session-id` equals `${aws:userid}`"
        ]
    assert job["ssm:AddTagsToResource"] == ["the role in SMSSH_ROLE", "managed instances"]
    assert {action for action, resources in node.items() if resources == ["`*`"]} == set(
        ssm_agent.NODE_ACTIONS
    )
    assert "kms:Decrypt" in node
    assert "has the tag `SSHOwner` only if" in page


NEVER_NEEDED = (
    "AmazonSSMManagedInstanceCore",
    "ec2messages",
    "session/${aws:userid}",
    "session/${aws:username}",
)


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_no_page_asks_for_a_permission_that_is_not_needed(path) -> None:
    for line in path.read_text().splitlines():
        for name in NEVER_NEEDED:
            assert name not in line or "allows the first five and more" in line or "is not needed" in line, (
                line
            )


def test_no_message_asks_for_a_permission_that_is_not_needed() -> None:
    """The local emulator speaks as AWS does, and so does its agent."""
    folders = (ROOT / "hooks", ROOT / "entrypoints", ROOT / "smssh_plugin")
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        if "local" in path.relative_to(ROOT).parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in documentation
            ):
                assert not any(name in node.value for name in NEVER_NEEDED), f"{path}:{node.lineno}"


def test_a_hook_without_an_example_or_an_argument_without_a_word_is_an_error(generator, monkeypatch) -> None:
    whole = generator.example_sources()
    for name in HOOKS:
        monkeypatch.setattr(
            generator, "example_sources", lambda name=name: {k: v for k, v in whole.items() if k != name}
        )
        with pytest.raises(ValueError, match=f"{name} has no example"):
            generator.hooks_page()
    monkeypatch.setattr(generator, "example_sources", lambda: {**whole, "smssh_gone": ""})
    with pytest.raises(ValueError, match="smssh_gone"):
        generator.hooks_page()
    monkeypatch.setattr(generator, "example_sources", lambda: whole)

    @hookspecs.hook(since="0.1", limit=None)
    def smssh_silent(context, word):
        """Do something.

        Args:
            context: the supervisor's context.
        """

    with pytest.raises(ValueError, match="word"):
        generator.hook_text("smssh_silent", smssh_silent, "")


def test_the_examples_are_taken_as_plugins() -> None:
    """Names and arguments are those of the hooks, or the plugin would be refused."""
    module = load(ROOT / "examples" / "plugins" / "every_hook.py")
    plugins = Plugins([("example", module)], entry_points=False)
    assert plugins.names == ["example"]
    assert plugins.register_commands({}) == {"jupyter": "our_package.jupyter:command"}
    assert [probe.name for probe in plugins.probes()] == ["gpu"]
    job = hookspecs.Job("job", "training", "algo-1", step="nightly-train")
    assert plugins.configure(settings.Settings(), job) == {"hold": ()}


def test_the_example_of_a_server_lets_its_users_in(monkeypatch, tmp_path) -> None:
    module = load(ROOT / "examples" / "plugins" / "every_hook.py")
    monkeypatch.setattr(module, "OUR_SSHD", needs.program("sshd"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(module, "OUR_PORT", free.getsockname()[1])
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "mine"], check=True)
    job = hookspecs.Job("job", "training", "algo-1")
    context = hookspecs.Context(settings.Settings(), job, tmp_path, {}, "/", "")
    context.authorized_keys = ((tmp_path / "mine.pub").read_text().strip(),)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # Debian's sshd wants it; its service makes it
    servers = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: servers.append(popen(*a, **k)) or servers[-1])
    try:
        server = module.smssh_start_server(context)
        (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        options = [
            f"IdentityFile={tmp_path / 'mine'}",
            f"UserKnownHostsFile={tmp_path / 'known'}",
            "BatchMode=yes",
        ]
        flags = [word for option in options for word in ("-o", option)]
        command = [
            "ssh",
            "-F",
            os.devnull,
            *flags,
            "-p",
            str(server.port),
            f"{server.user}@127.0.0.1",
            "echo in",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (done.stdout, done.returncode) == ("in\n", 0), done.stderr
    finally:
        for process in servers:
            process.kill()
            process.wait()


def named_tests():
    text = (DOCS / "contract.md").read_text()
    return sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)))


def test_the_contract_names_tests() -> None:
    rows = [line for line in (DOCS / "contract.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| fault", "| ---"))]
    assert len(rows) > 30
    assert all("::test_" in row for row in rows)


@pytest.mark.parametrize(("path", "name"), named_tests())
def test_a_test_that_the_contract_names_exists(path, name) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_of_a_fault_is_in_the_contract() -> None:
    """Those of the folder that is about nothing else."""
    named = {f"{path}::{name}" for path, name in named_tests()}
    about_guards = {
        # Parts of what is named, or the way without a fault.
        "tests/faults/test_hooks.py::test_every_container_side_hook_that_somebody_waits_for_has_a_limit",
        "tests/faults/test_surroundings.py::test_the_usual_place_is_run",
        "tests/faults/test_versions.py::test_off_is_off_for_both",
    }
    for path in (ROOT / "tests" / "faults").glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert f"tests/faults/{path.name}::{node.name}" in named | about_guards


def test_every_file_of_the_architecture_is_there() -> None:
    """What a stranger looks for: by its whole path in the tables, from the package's folder in the pictures."""
    page = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`((?:smssh_plugin|entrypoints|hooks|tests)/[\w./]+)`", page))
    drawn = set(re.findall(r"[\s(]((?:submit|supervisor|cli|client|session)/[\w/]+\.py)", page))
    assert len(named) > 30
    assert len(drawn) > 6
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]
    assert not [name for name in sorted(drawn) if not (ROOT / "smssh_plugin" / name).exists()]
    launchers = page.partition("### Launchers and parents")[2].partition("\n## ")[0]
    for name in (
        "run.sh",
        "sitecustomize.py",
        "env.sh",
        "chain.py",
        "smssh.pth",
        "smssh.start",
        "smssh_hook.py",
    ):
        assert f"`entrypoints/{name}`" in launchers


def references_in_code() -> set[str]:
    """The names of errors that are passed as `reference`, or to `refuse`."""
    found = set()
    for room in ("smssh_plugin", "hooks", "entrypoints"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r"\breference ?= ?\"([a-z0-9-]+)\"", text))
            found |= set(re.findall(r"\brefuse\([^()]*, \"([a-z0-9]+(?:-[a-z0-9]+)+)\",?\s*\)", text))
    assert len(found) > 100
    return found


def test_the_site_loads_nothing_from_elsewhere(tmp_path) -> None:
    """`make docs-site` without a warning, so without a broken link; every page is found, and works offline."""
    options = ["--fresh-env", "--fail-on-warning", "--keep-going", "--quiet", "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, "-d", tmp_path / "doctrees", DOCS, tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    home = (tmp_path / "site" / "index.html").read_text()
    for page in PAGES:
        assert page.name == "index.md" or f'href="{page.stem}.html"' in home, page.name
    loaded = re.compile(r"""(?:\bsrc|<link[^>]*\bhref)=["'](?:https?:)?//|url\(["']?(?:https?:)?//|@import""")
    for path in (tmp_path / "site").rglob("*"):
        if path.suffix in (".html", ".css", ".svg"):
            assert not loaded.search(path.read_text(encoding="utf-8")), path
    architecture = (tmp_path / "site" / "architecture.html").read_text()
    assert architecture.count('<svg class="sequence"') == (DOCS / "architecture.md").read_text().count(
        "```mermaid"
    )
    # A copied command has no prompt, and the lines that a backslash continues.
    assert (
        r"formatCopyText(text, '^(?:\\$|root@algo-1:~#) ', true, true, true, true, '\\', '')"
        in (tmp_path / "site" / "_static" / "copybutton.js").read_text()
    )
    names = (tmp_path / "site" / "python-api.html").read_text()
    for name in set(smssh_plugin.__all__) - {"__version__", "hookimpl"}:
        assert f'id="smssh_plugin.{name}"' in names, name
    errors = (tmp_path / "site" / "errors.html").read_text()
    for reference in references_in_code():
        assert f'<dt id="{reference}">' in errors, reference
    assert "no digest of the agent was pinned for" in errors


@pytest.mark.needs("dot")
@pytest.mark.parametrize("source", sorted(DOCS.glob("*.dot")), ids=lambda path: path.name)
def test_a_picture_shows_what_its_source_says(source) -> None:
    """Not byte for byte: another version of Graphviz places things elsewhere."""
    drawn = subprocess.run(["dot", "-Tsvg", source], capture_output=True, text=True, check=True).stdout

    def shown(svg):
        return sorted(re.findall(r"<(?:title|text\b[^>]*)>([^<]*)<", svg))

    kept = source.with_suffix(".svg").read_text(encoding="utf-8")
    assert shown(kept) == shown(drawn), f"run dot -Tsvg docs/{source.name} -o docs/{source.stem}.svg"
    assert len(shown(kept)) > 10


STUDIO = "can-i-log-in-to-sagemaker-studio-a-notebook-instance-or-a-jupyter-server"
ENABLE = "i-use-boto3-or-a-tuner-or-another-region"
QUESTIONS = {
    "Windows": "is-windows-supported",
    "notebook instances": STUDIO,
    "a session without knowing the instance": "what-is-the-address-of-my-job",
    "warm pools": "should-i-use-warm-pools-instead",
    "remote development on a training job": "how-do-i-work-in-a-job-from-my-ide",
    "connecting from Studio": "can-i-log-in-from-sagemaker-studio-or-a-notebook-instance",
    "users who impersonate each other": "can-somebody-else-log-in-to-my-job",
    "jobs that fail with an error": "the-job-failed-before-i-could-log-in",
    "folders like Desktop in Studio": STUDIO,
    "a VPC": "jobs-run-in-a-vpc",
    "stopping the placeholder when nobody is connected": "how-do-i-stop-jobs-that-nobody-uses",
    "SMS or mail": "can-i-be-told-by-mail-or-in-slack",
    "boto3 instead of the SageMaker SDK": ENABLE,
    "the bucket of authorized keys": "where-are-public-keys-stored",
    "an Estimator in my own container": "my-code-is-in-the-image",
    "a MultiDataModel with an image only": "does-it-work-with-endpoints",
    "hyperparameter tuning": ENABLE,
    "another region": ENABLE,
    "a profile of the AWS CLI": ENABLE,
    "automating the pipeline": "can-i-automate-the-fix-of-a-pipeline",
    "Jupyter Server": STUDIO,
    "private keys through the SSH agent": "how-do-i-use-my-ssh-keys-or-my-git-account-in-a-job",
    "large language models on endpoints": "does-it-work-with-endpoints",
    "something does not work": "something-does-not-work-where-do-i-begin",
    "throttling": "throttlingexception-rate-exceeded",
    "SSM commands in the container": "what-does-smssh-do-in-my-container",
    "offline instances": "nodes-of-ended-jobs-are-left-in-fleet-manager",
    "delay until a session can start": "how-long-is-it-before-i-can-log-in",
    "the advanced-instances tier": "enable-advanced-instances-tier-to-use-session-manager",
    "the speed of Studio's file system": STUDIO,
}
"""What each question of sagemaker-ssh-helper's FAQ is about, and which of ours answers it."""


def test_every_question_of_the_helper_has_an_answer() -> None:
    ours = anchors(DOCS / "faq.md")
    assert [theirs for theirs, answer in QUESTIONS.items() if answer not in ours] == []


def test_a_diagram_that_is_not_understood_is_an_error() -> None:
    svg = load(ROOT / "dev" / "sequence_diagram.py").svg
    with pytest.raises(ValueError, match="Note over A"):
        svg("sequenceDiagram\nparticipant A as a\nNote over A: x")
    with pytest.raises(ValueError, match="A->>B"):
        svg("sequenceDiagram\nparticipant A as a\nA->>B: x")
    with pytest.raises(ValueError, match="flowchart"):
        svg("flowchart LR")


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


TEXTS = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "AGENTS.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.txt")),
]
NOT_PLAIN = re.compile(
    r"\b(?:whom|whoever|whomever|whosoever|(?:is|are) none|to be had|so (?:is|are)|not so|none is|"
    r"keepers?|doors?|carriers?|cautions?|leftovers?|stand-ins?|agent double|mend(?:s|ed|ing)?|adopt(?:s|ed|ing)?)\b",
    re.IGNORECASE,
)
"""Forms that the pages do not use, and words that have been replaced: a launcher, a warning, an orphan, an emulator."""


def prose(text: str) -> str:
    """The text without code, which has names of its own."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_is_plain_english(path) -> None:
    found = [(line, NOT_PLAIN.findall(line)) for line in prose(path.read_text(encoding="utf-8")).splitlines()]
    assert [(words, line) for line, words in found if words] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_has_one_title_and_headings_without_a_final_period(page) -> None:
    headings = re.findall(
        r"^(#+) (.+)$",
        re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL),
        re.MULTILINE,
    )
    assert [level for level, _ in headings].count("#") == 1
    assert headings[0][0] == "#"
    assert not [text for _, text in headings if text.endswith((".", ":")) or text == "Protocol"]


def anchors(page):
    """What a link can name on a page, as GitHub makes it from headings."""
    plain = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [path for path in TEXTS if path.suffix == ".md"],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_lead_somewhere(page) -> None:
    """On GitHub, where README and the pages are read as they stand; the site has a test of its own."""
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"
