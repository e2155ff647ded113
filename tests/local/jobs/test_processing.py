"""Processing jobs of the local emulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.jobs_support import World

pytestmark = pytest.mark.timeout(90)

SCRIPT = """
import json, pathlib
config = json.loads(pathlib.Path("/opt/ml/config/processingjobconfig.json").read_text())
cluster = json.loads(pathlib.Path("/opt/ml/config/resourceconfig.json").read_text())
rows = pathlib.Path("/opt/ml/processing/input/data/raw.csv").read_text().splitlines()
target = pathlib.Path("/opt/ml/processing/output/train")
(target / "deep").mkdir()
(target / "deep" / "rows.txt").write_text(str(len(rows)))
pathlib.Path("/opt/ml/output/message").write_text("two rows")
print(json.dumps([config["ProcessingJobName"], config["ProcessingJobArn"], cluster["current_host"]]))
"""


def _input(world: World, name: str, key: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": world.uri(key),
            "LocalPath": f"/opt/ml/processing/input/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }


def _output(world: World, mode: str = "EndOfJob") -> dict[str, Any]:
    output = {
        "S3Uri": world.uri("prepared"),
        "LocalPath": "/opt/ml/processing/output/train",
        "S3UploadMode": mode,
    }
    return {"Outputs": [{"OutputName": "train", "S3Output": output}]}


def test_script_reads_inputs_and_leaves_outputs(world: World) -> None:
    world.put("in/data/raw.csv", "1\n2\n")
    world.put("in/code/prepare.py", SCRIPT)
    job = world.processing(
        ["python3", "/opt/ml/processing/input/code/prepare.py"],
        ProcessingInputs=[_input(world, "data", "in/data"), _input(world, "code", "in/code/prepare.py")],
        ProcessingOutputConfig=_output(world),
    )
    outcome = world.run(job)
    assert (outcome.status, outcome.exit_code, outcome.exit_message) == ("Completed", 0, "two rows")
    assert world.get(world.uri("prepared/deep/rows.txt")) == b"2"
    line = json.dumps([job.name, job.arn, "algo-1"])
    assert world.events("/aws/sagemaker/ProcessingJobs", f"{job.name}/algo-1-") == [line]


@pytest.mark.parametrize("mode", ["EndOfJob", "Continuous"])
def test_failure(world: World, mode: str) -> None:
    script = "echo 1 > /opt/ml/processing/output/train/x; echo 'bad input' > /opt/ml/output/message; exit 3"
    job = world.processing(["/bin/sh", "-c", script], ProcessingOutputConfig=_output(world, mode))
    outcome = world.run(job)
    assert (outcome.status, outcome.exit_code, outcome.exit_message) == ("Failed", 3, "bad input")
    assert outcome.failure_reason == "AlgorithmError: See job logs for more information"
    assert world.keys("prepared/") == (["prepared/x"] if mode == "Continuous" else [])


def test_arguments_follow_the_entry_point(world: World) -> None:
    job = world.processing(["/bin/echo", "one"])
    job.request["AppSpecification"]["ContainerArguments"] = ["two words", "$HOME"]
    assert world.run(job).status == "Completed"
    assert world.lines == ["algo-1: one two words $HOME"]


def test_no_entry_point(world: World) -> None:
    job = world.processing(["x"])
    del job.request["AppSpecification"]["ContainerEntrypoint"]
    assert "ContainerEntrypoint" in (world.run(job).failure_reason or "")


def test_output_is_not_a_line_for_cloudwatch(world: World) -> None:
    text = "'a' * 600_000 + '\\n\\n' + 'b\\r\\n' + 'caf\\u00e9 ' * 60_000 + '\\n' + 'end'"
    script = f"import sys; sys.stdout.write({text})"
    job = world.processing(["python", "-c", script])
    assert world.run(job).status == "Completed"
    events = world.events("/aws/sagemaker/ProcessingJobs", job.name)
    assert all(len(event.encode()) <= 256 * 1024 - 26 for event in events)
    assert "".join(events) == "a" * 600_000 + "b" + "café " * 60_000 + "end"
    assert events[-1] == "end"


def test_many_lines_arrive_in_order(world: World) -> None:
    job = world.processing(["seq", "1", "30000"])
    assert world.run(job).status == "Completed"
    assert world.events("/aws/sagemaker/ProcessingJobs", job.name) == [
        str(number) for number in range(1, 30001)
    ]


@pytest.mark.parametrize("path", ["/etc/passwd", "/opt/ml/../../etc", "/opt/mlx"])
def test_inputs_stay_below_opt_ml(world: World, path: str) -> None:
    world.put("in/x", "1")
    item = _input(world, "data", "in/")
    item["S3Input"]["LocalPath"] = path
    outcome = world.run(world.processing(["true"], ProcessingInputs=[item]))
    assert "must be below /opt/ml/processing" in (outcome.failure_reason or "")


def test_key_that_leads_out_of_its_folder(world: World) -> None:
    world.put("in/../../../../x", "1")
    outcome = world.run(world.processing(["true"], ProcessingInputs=[_input(world, "data", "in/")]))
    assert "leads out of its folder" in (outcome.failure_reason or "")


@pytest.mark.parametrize(
    "made",
    [
        "mkfifo {}",
        "ln -s /etc/hostname {}",
        "ln -s /dev/zero {}",
        "mkdir {}",
        "rm -rf $(dirname {}) && ln -s /etc $(dirname {}) && true",
    ],
)
def test_a_message_that_is_no_file_of_the_job_holds_up_nothing(world: World, made: str) -> None:
    script = made.replace("{}", "/opt/ml/output/message")
    outcome = world.run(world.processing(["/bin/sh", "-c", script]))
    assert (outcome.status, outcome.exit_message) == ("Completed", None)


def test_a_failure_that_is_a_fifo_holds_up_nothing(world: World) -> None:
    outcome = world.run(world.training(["/bin/sh", "-c", "mkfifo /opt/ml/output/failure; exit 3"]))
    assert (outcome.status, outcome.failure_reason) == ("Failed", "AlgorithmError: , exit code: 3")


def test_nothing_that_is_not_the_job_s_is_uploaded(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    script = (
        f"cd /opt/ml/processing/out && ln -s {secret} out && ln -s {tmp_path} folder && mkfifo pipe"
        " && echo mine > file && ln -s file link"
    )
    output = {"S3Uri": world.uri("kept"), "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"}
    config = {"Outputs": [{"OutputName": "out", "S3Output": output}]}
    outcome = world.run(world.processing(["/bin/sh", "-c", script], ProcessingOutputConfig=config))
    assert outcome.status == "Completed"
    assert world.keys("kept") == ["kept/file", "kept/link"]
