"""Every kind of step and job of the real SDKs, before and after, against files that hold what both are to be.

By default the newest of v2 and v3; `make test-sdks` runs all that are supported, and prints the table.
`SMSSH_TEST_GOLDEN=write` writes the files anew: read what git says of them then.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SSHOptions
from smssh_plugin.definitions import named_steps
from smssh_plugin.submit.pipelines import inject_definition
from smssh_plugin.submit.request.add_ssh import KINDS
from smssh_plugin.submit.selection import Selection
from tests.submit.sdks.environments import NEWEST, PATIENCE, REQUIREMENTS, offline_variables, python_of

from .conftest import KEY
from .sdks import golden

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = os.environ.get("SMSSH_TEST_SDKS") == "all"
VERSIONS = tuple(REQUIREMENTS) if ALL else NEWEST
WRITE = os.environ.get("SMSSH_TEST_GOLDEN") == "write"
MACHINES = (
    {"PYTHONHASHSEED": "0", "USER": "ann", "LOGNAME": "ann", "TZ": "UTC"},
    {"PYTHONHASHSEED": "1", "USER": "bob", "LOGNAME": "bob", "TZ": "Asia/Tokyo", "LANG": "C.UTF-8"},
)
"""Two machines that have nothing in common but the files of the user's and the keys."""

pytestmark = pytest.mark.timeout(2 * PATIENCE)


@dataclass
class Outcome:
    """What the program of a version gave, on two machines."""

    version: str
    folders: list[Path]
    found: list[dict[str, Any]]

    def normal(self, case: str, moment: str) -> Any:
        return golden.normal(self.found[0][case][moment], self.folders[0])

    def cases(self, moment: str) -> list[str]:
        return [case for case, given in self.found[0].items() if moment in given]


SERVER = """
import sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The address of a moto of one's own: machines that upload the same files at once break a common one."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def run(program: str, python: Path, folder: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Run a program of sdks/ on a machine of its own, and read what it found."""
    with moto() as endpoint:
        environment = {**offline_variables(folder, endpoint), **variables}
        (folder / "home" / "id_ed25519").write_text("not a key\n")
        (folder / "home" / "id_ed25519.pub").write_text(KEY + "\n")
        done = subprocess.run(
            [python, Path(__file__).parent / "sdks" / program, folder / "out.json", folder / "files"],
            env=environment,
            cwd=folder / "work",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-5000:]
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


@pytest.fixture(scope="module", params=VERSIONS)
def sdk_outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    version = request.param
    python, program = python_of(version), f"v{version.split('.')[0]}.py"
    folders = [tmp_path_factory.mktemp("machine") for _ in MACHINES]
    with ThreadPoolExecutor() as pool:
        found = list(
            pool.map(lambda given: run(program, python, *given), zip(folders, MACHINES, strict=True))
        )
    return Outcome(version, folders, found)


def test_requests_are_what_the_files_say(sdk_outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for case in sdk_outcome.cases("before"):
        found = {
            moment: golden.requests_in(sdk_outcome.normal(case, moment)) for moment in ("before", "after")
        }
        if WRITE:
            golden.write(sdk_outcome.version, case, found, newest=sdk_outcome.version in NEWEST)
        expected = golden.read(sdk_outcome.version, case)
        if found != expected:
            wrong.append(case)
            assert expected is not None, f"there is no file for {case}"
            assert found["before"] == expected["before"]
            assert found["after"] == expected["after"]
    assert not wrong
    if ALL:
        with capsys.disabled():
            print("\n".join(["", f"SageMaker SDK {sdk_outcome.version}", *rows(sdk_outcome)]))


def rows(outcome: Outcome) -> list[str]:
    """The table of a version: for each request, what was changed."""
    lines = []
    for case in outcome.cases("before"):
        before, after = (golden.requests_in(outcome.normal(case, moment)) for moment in ("before", "after"))
        for name, request in before.items():
            what = ", ".join(golden.changes(request, after[name])) or "nothing"
            lines.append(f"  {case:43}{name[:34]:36}{what}")
    return lines


OURS = {
    *("variables", "PYTHONPATH", "entry point wrapped", "channel", "input", "data source"),
    "whole source folder",  # of a model that is repacked with the bundle
}


def test_nothing_else_is_different(sdk_outcome: Outcome) -> None:
    for case in sdk_outcome.cases("before"):
        before, after = sdk_outcome.normal(case, "before"), sdk_outcome.normal(case, "after")
        assert golden.rest_of(after) == golden.rest_of(before), case
        old, new = golden.requests_in(before), golden.requests_in(after)
        for name, request in old.items():
            changed = set(golden.changes(request, new[name]))
            left = any(name.endswith(each) for each in LEFT.get(case, ()))
            assert bool(changed) is not left, (case, name)
            assert changed <= OURS, (case, name)


LEFT = {
    "left-alone-models": ("Release", "Model", "Release-CreateModel", "Model-CreateModel", "Score"),
    "left-alone-several-containers": ("Models-CreateModel", "Score"),
    "left-alone-old-model-step": ("Model", "Score"),
    "left-alone-old-model-step-isolated": ("Model", "Score"),
    "job-transformer": ("CreateModel", "CreateTransformJob"),
}
"""Models that nobody named and no transform step uses that can have SSH, and the transform steps that cannot."""
SAID = {
    "left-alone-models": "AWS does not document AdditionalModelDataSources for batch transform; let a job repack",
    "left-alone-several-containers": "its model can't have SSH: Containers has 2 entries",
    "left-alone-old-model-step": "the native transport is SageMaker's remote debugging, which no transform job has",
    "left-alone-old-model-step-isolated": "its model can't have SSH: EnableNetworkIsolation is on",
}


def test_what_is_left_alone_is_said_once_with_its_reason(sdk_outcome: Outcome) -> None:
    cases = [case for case in sdk_outcome.cases("said") if case in SAID]
    assert cases
    for case in cases:
        (text,) = [each for each in sdk_outcome.found[0][case]["said"] if each.startswith("no SSH for")]
        assert text.startswith("no SSH for step 'Score' of pipeline"), case
        assert SAID[case] in text, case


def test_nothing_is_made_in_a_folder_of_the_users(sdk_outcome: Outcome) -> None:
    for case in sdk_outcome.cases("touched"):
        assert not sdk_outcome.found[0][case]["touched"], case


def test_off_is_as_if_it_had_never_been(sdk_outcome: Outcome) -> None:
    for case in sdk_outcome.cases("off"):
        given, folder = sdk_outcome.found[0][case], sdk_outcome.folders[0]
        assert golden.steady(given["off"], folder) == golden.steady(given["before"], folder), case


def test_a_pipeline_gives_what_its_steps_give(sdk_outcome: Outcome) -> None:
    for case in sdk_outcome.cases("whole"):
        assert sdk_outcome.normal(case, "whole") == sdk_outcome.normal(case, "after"), case


def test_a_definition_gives_what_its_steps_give(sdk_outcome: Outcome, boto_session: Any) -> None:
    """What `enable` makes of CreatePipeline, without the SDK."""
    options = SSHOptions(bundle_prefix="s3://tests-bucket/smssh/bundles")
    for case in sdk_outcome.cases("whole"):
        # Only where the SDK makes the step's request can files be put beside a script.
        if sdk_outcome.found[0][case]["options"] or sdk_outcome.found[0][case]["repacked"]:
            continue
        before = sdk_outcome.found[0][case]["before"]
        kinds = {KINDS[step["Type"]] for step, _ in named_steps(before) if step["Type"] in KINDS}
        after = inject_definition(before, options, Selection(sorted(kinds)), lambda: boto_session)
        text = json.dumps(after).replace("s3://tests-bucket/", "s3://sagemaker-us-east-1-123456789012/")
        found = golden.normal(json.loads(text), sdk_outcome.folders[0])
        assert found == sdk_outcome.normal(case, "after"), case


def test_a_model_is_repacked_with_the_bundle(sdk_outcome: Outcome) -> None:
    cases = [case for case in sdk_outcome.cases("repacked") if case.endswith("with-bundle")]
    assert cases or sdk_outcome.version == "3.20.0", "3.20 repacks no models in pipelines"
    for case in cases:
        names = sdk_outcome.found[0][case]["repacked"]
        assert {"inference.py", "smssh/sitecustomize.py", "smssh/smssh.zip", "smssh/options.json"} <= set(
            names
        ), case
    usual = sdk_outcome.found[0]["transform-model-repack"]["repacked"]
    assert not [name for name in usual if name.startswith("smssh")]


def test_two_machines_and_two_hash_seeds_give_the_same_bytes(sdk_outcome: Outcome) -> None:
    for case in sdk_outcome.cases("after"):
        texts = [
            golden.steady(found[case]["after"], folder)
            for found, folder in zip(sdk_outcome.found, sdk_outcome.folders, strict=True)
        ]
        assert texts[0] == texts[1], case


def test_two_compilations_give_the_same_bytes(sdk_outcome: Outcome) -> None:
    """The second is of other objects, and of the pipeline as a whole."""
    for case in sdk_outcome.cases("whole"):
        given, folder = sdk_outcome.found[0][case], sdk_outcome.folders[0]
        assert golden.steady(given["whole"], folder) == golden.steady(given["after"], folder), case


def test_the_wrong_order_of_decorators_is_an_error_that_shows_the_right_one(sdk_outcome: Outcome) -> None:
    error = sdk_outcome.found[0]["function-wrong-order"]["error"]
    assert "write @with_ssh above @step, not below it" in error
    assert "    @with_ssh\n    @step(...)\n    def double(...):" in error
