"""Jobs that were submitted through each form run on the local emulator, and are entered by a real ssh."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.waiting import until

from .conftest import make, unmake
from .forms import JOBS, STEPS
from .machine import PATIENCE, client, image_with_asyncssh

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3 * PATIENCE),
    pytest.mark.needs("image environment"),
]
FORMS = Path(__file__).with_name("forms.py")
KINDS = {"processing": "describe_processing_job", "training": "describe_training_job"}


@pytest.fixture(scope="module")
def submitted():
    """A local emulator with a job of each form, and where each is entered."""
    machine = make()
    image = image_with_asyncssh(machine.home / "image")
    exports = machine.smssh("local", "up", "--port", "0", "--image", image).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))
    addresses = {}
    for words, variables in ((), {}), (["process"], {"SMSSH_ENABLE": "1"}):
        done = machine.run(sys.executable, FORMS, machine.home, *words, **variables)
        addresses.update(json.loads(done.stdout.splitlines()[-1]))
    yield machine, addresses
    machine.smssh("local", "down")
    machine.assert_nothing_left()
    unmake(machine)


def nodes(machine):
    """What `smssh list` shows, by step or, outside of pipelines, by job."""
    found = json.loads(machine.smssh("list", "--json").stdout)["hosts"]
    return {each["step"] or each["job"]: each for each in found}


def enter(machine, address):
    """Log in, and let the job go; it may be over before the login is."""
    done = machine.smssh("connect", address, "--", "hostname && id -un && touch /opt/ml/go", check=False)
    assert len(done.stdout.split()) == 2, done.stdout + done.stderr


def status(machine, job, kind):
    name = kind.title()
    described = getattr(client(machine, "sagemaker"), KINDS[kind])(**{f"{name}JobName": job})
    return described[f"{name}JobStatus"]


def executions(machine, pipeline):
    """The status of each execution, by what its parameter Debug is."""
    service = client(machine, "sagemaker")
    found = {}
    for each in service.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"]:
        arn = each["PipelineExecutionArn"]
        given = service.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
        debug = next((one["Value"] for one in given if one["Name"] == "Debug"), "")
        found[debug] = service.describe_pipeline_execution(PipelineExecutionArn=arn)[
            "PipelineExecutionStatus"
        ]
    return found


@pytest.mark.parametrize("form", [*STEPS, "definition"])
def test_a_step(submitted, form) -> None:
    machine, addresses = submitted
    node = until(lambda: nodes(machine).get(form), seconds=PATIENCE)
    enter(machine, addresses[form])
    kind = "training" if form == "definition" else "processing"
    until(lambda: status(machine, node["job"], kind) == "Completed", seconds=PATIENCE)


def test_a_step_by_the_parameter_of_its_execution(submitted) -> None:
    machine, addresses = submitted
    until(lambda: executions(machine, "switch")["0"] == "Succeeded", seconds=PATIENCE)
    until(lambda: nodes(machine).get("parameter"), seconds=PATIENCE)
    enter(machine, addresses["parameter"])
    until(lambda: executions(machine, "switch")["1"] == "Succeeded", seconds=PATIENCE)


def test_a_transform_step_whose_model_was_repacked_with_the_bundle(submitted) -> None:
    machine, addresses = submitted
    until(lambda: nodes(machine).get("repacked"), seconds=PATIENCE)
    # It came with the model, and went into the private folder before the model server saw it.
    shown = 'ls "$SMSSH_RUN_DIR/bundle"; ls -d /opt/ml/model/code/smssh 2>&1 || :'
    found = machine.smssh("connect", addresses["repacked"], "--", shown).stdout
    assert "sitecustomize.py" in found.split()
    assert "No such file" in found
    enter(machine, addresses["repacked"])
    until(lambda: executions(machine, "repack")[""] == "Succeeded", seconds=PATIENCE)


@pytest.mark.parametrize("form", JOBS)
def test_a_job(submitted, form) -> None:
    machine, addresses = submitted
    job, kind, _ = addresses[form].split(".")
    until(lambda: nodes(machine).get(job), seconds=PATIENCE)
    enter(machine, addresses[form])
    until(lambda: status(machine, job, kind) == "Completed", seconds=PATIENCE)


def test_the_others_are_left_alone(submitted) -> None:
    """A step that was not chosen, and the execution without SSH, came to their end by themselves."""
    machine, _ = submitted
    assert "none" not in nodes(machine)
    service = client(machine, "sagemaker")
    definition = json.loads(service.describe_pipeline(PipelineName="forms")["PipelineDefinition"])
    (none,) = [step for step in definition["Steps"] if step["Name"] == "none"]
    assert "smssh" not in json.dumps(none).lower()
