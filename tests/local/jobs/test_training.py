"""Training jobs of the local emulator: the toolkit's real `train`, and commands as SDK v3 sends them."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.local.sandbox.container import shared_network
from tests.local.jobs_support import ROLE, World

if TYPE_CHECKING:
    from pathlib import Path

    from smssh_plugin.local.jobs.kinds import Outcome

pytestmark = pytest.mark.timeout(90)

GROUP = "/aws/sagemaker/TrainingJobs"


def test_script_mode_trains_and_uploads(world: World) -> None:
    world.put("data/train/a.csv", "1,2\n")
    world.put("data/train/deep/b.csv", "3,4\n")
    job = world.script_mode(
        """
        import os, pathlib, sys
        folder = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"])
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.csv"))
        print("found", names, sys.argv[1:], os.environ["COLOUR"], os.environ["TRAINING_JOB_NAME"])
        pathlib.Path(os.environ["SM_MODEL_DIR"], "weights.txt").write_text("42")
        pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "scores.txt").write_text("good")
        """,
        Environment={"COLOUR": "green"},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": world.uri("data/train")}},
            }
        ],
    )
    outcome = world.run(job)
    assert (outcome.status, outcome.failure_reason, outcome.exit_code) == ("Completed", None, 0)
    home = world.uri(f"out/{job.name}/output")
    assert outcome.model_artifacts == f"{home}/model.tar.gz"
    assert world.unpack(outcome.model_artifacts) == {"weights.txt": "42"}
    assert world.unpack(f"{home}/output.tar.gz") == {"scores.txt": "good"}
    line = f"found ['a.csv', 'deep/b.csv'] ['--epochs', '3'] green {job.name}"
    assert f"algo-1: {line}" in world.lines
    assert line in world.events(GROUP, f"{job.name}/algo-1-")
    assert line in (world.root / "jobs" / job.name / "algo-1.log").read_text().splitlines()
    assert [status for _, status in world.statuses] == ["Starting", "Downloading", "Training", "Uploading"]
    assert outcome.started is not None
    assert outcome.ended is not None
    assert outcome.ended > outcome.started


def test_script_mode_failure_is_worded_as_the_service_does(world: World) -> None:
    outcome = world.run(world.script_mode("raise ValueError('no such column: price')"))
    assert (outcome.status, outcome.exit_code, outcome.model_artifacts) == ("Failed", 1, None)
    assert outcome.failure_reason is not None
    assert re.fullmatch(
        r"AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage .*"
        r'\nCommand "[^"]+/python3?(\.\d+)? .*train\.py --epochs 3", exit code: 1',
        outcome.failure_reason,
        re.DOTALL,
    )
    assert "algo-1: ValueError: no such column: price" in world.lines


def test_script_mode_exit_status_is_in_the_text(world: World) -> None:
    outcome = world.run(world.script_mode("import sys; sys.exit(7)"))
    # The toolkit ends with 1, whatever the script ended with.
    assert outcome.exit_code == 1
    assert outcome.failure_reason is not None
    assert "ExitCode 7" in outcome.failure_reason


def test_command_of_sdk_v3(world: World) -> None:
    world.put(
        "drivers/sm_train.sh", "echo running $0; cat /opt/ml/input/data/code/x.txt > /opt/ml/model/y.txt\n"
    )
    world.put("code/x.txt", "hello")
    driver = "/opt/ml/input/data/sm_drivers/sm_train.sh"
    channels = [
        {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}
        for name, uri in (("sm_drivers", world.uri("drivers/")), ("code", world.uri("code/x.txt")))
    ]
    job = world.training(["/bin/bash", "-c", f"chmod +x {driver} && {driver}"], InputDataConfig=channels)
    outcome = world.run(job)
    assert outcome.status == "Completed"
    assert outcome.model_artifacts is not None
    assert world.unpack(outcome.model_artifacts) == {"y.txt": "hello"}


def test_files_and_environment_of_the_container(world: World) -> None:
    script = "import json,os,sys; print(json.dumps({'env': dict(os.environ), 'pid': os.getpid()}))"
    files = "; ".join(
        f"cat /opt/ml/input/config/{name}.json; echo" for name in ("hyperparameters", "resourceconfig")
    )
    job = world.training(
        [
            "/bin/sh",
            "-c",
            f'{files}; cat /opt/ml/input/config/inputdataconfig.json; echo; exec python -c "{script}"',
        ],
        HyperParameters={"epochs": "3"},
    )
    assert world.run(job).status == "Completed"
    parameters, cluster, inputs, process = (json.loads(line.removeprefix("algo-1: ")) for line in world.lines)
    assert parameters == {"epochs": "3"}
    assert inputs == {}
    assert cluster["current_host"] == "algo-1"
    assert cluster["hosts"] == ["algo-1"]
    assert process["pid"] == 1
    environment = process["env"]
    assert environment["TRAINING_JOB_ARN"] == job.arn
    assert environment["AWS_ENDPOINT_URL"] == world.endpoint
    first, second = environment["PATH"].split(":")[:2]
    assert (first, second) == (str(world.root / "bin"), f"{world.image}/bin")
    # Nothing of this process' environment, pytest's variable for one.
    assert "PYTEST_CURRENT_TEST" not in environment
    # Its own /tmp is the default, as in a container on AWS.
    assert "TMPDIR" not in environment


def test_failure_without_a_failure_file(world: World) -> None:
    outcome = world.run(world.training(["/bin/sh", "-c", "exit 3"]))
    assert outcome.failure_reason == "AlgorithmError: , exit code: 3"


def test_failure_file_is_cut_to_the_limit(world: World) -> None:
    command = "head -c 5000 /dev/zero | tr '\\0' x > /opt/ml/output/failure; kill -KILL $$; exit 9"
    outcome = world.run(world.training(["/bin/sh", "-c", command]))
    # PID 1 cannot kill itself.
    assert outcome.failure_reason is not None
    assert len(outcome.failure_reason) == 1024
    assert outcome.failure_reason.endswith("x, exit code: 9")


def test_output_but_no_model_is_uploaded_on_failure(world: World) -> None:
    command = "echo 1 > /opt/ml/model/m; echo 2 > /opt/ml/output/data/d; exit 1"
    job = world.training(["/bin/sh", "-c", command])
    world.run(job)
    assert world.keys("out/") == [f"out/{job.name}/output/output.tar.gz"]


def test_no_train_on_the_path(world: World, tmp_path: Path) -> None:
    (tmp_path / "image" / "bin").mkdir(parents=True)
    (tmp_path / "image" / "bin" / "python").symlink_to("/bin/true")
    world.image = tmp_path / "image"
    outcome = world.run(world.training())
    assert outcome.status == "Failed"
    assert outcome.failure_reason is not None
    assert "docker run <image> train" in outcome.failure_reason


def test_entry_point_that_is_not_there(world: World) -> None:
    outcome = world.run(world.training(["/opt/ml/input/data/nothing/here.sh"]))
    assert outcome.status == "Failed"
    assert outcome.failure_reason is not None
    assert "No such file or directory" in outcome.failure_reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"InputMode": "Pipe"}, "InputMode Pipe is not served"),
        ({"DataSource": {"FileSystemDataSource": {}}}, "FileSystemDataSource is not served"),
        ({}, 'No S3 objects found under S3 URL "s3://'),
    ],
)
def test_inputs_that_cannot_be(world: World, change: dict[str, Any], words: str) -> None:
    channel = {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": world.uri("nothing/")}},
        **change,
    }
    outcome = world.run(world.training(["true"], InputDataConfig=[channel]))
    assert outcome.status == "Failed"
    assert outcome.failure_reason is not None
    assert outcome.failure_reason.startswith("ClientError: ")
    assert words in outcome.failure_reason


def test_output_that_cannot_be_written(world: World) -> None:
    job = world.training(
        ["/bin/sh", "-c", "echo 1 > /opt/ml/model/m"],
        OutputDataConfig={"S3OutputPath": "s3://no-such-bucket-here/out"},
    )
    outcome = world.run(job)
    assert outcome.status == "Failed"
    assert outcome.failure_reason is not None
    assert "NoSuchBucket" in outcome.failure_reason


def test_several_hosts(world: World) -> None:
    command = "echo $(getent hosts algo-2 | cut -d' ' -f1) > /opt/ml/model/$(python -c \"{}\")".format(
        "import json; print(json.load(open('/opt/ml/input/config/resourceconfig.json'))['current_host'])"
    )
    world.put("d/1", "1")
    world.put("d/2", "2")
    source = {"S3DataType": "S3Prefix", "S3Uri": world.uri("d/"), "S3DataDistributionType": "ShardedByS3Key"}
    job = world.training(
        ["/bin/sh", "-c", f"ls /opt/ml/input/data/x; {command}"],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        InputDataConfig=[{"ChannelName": "x", "DataSource": {"S3DataSource": source}}],
    )
    outcome = world.run(job)
    assert outcome.status == "Completed"
    assert outcome.model_artifacts is not None
    other = "127.0.0.1" if shared_network() else "198.18.0.2"
    assert world.unpack(outcome.model_artifacts) == {"algo-1": f"{other}\n", "algo-2": f"{other}\n"}
    assert sorted(world.lines) == ["algo-1: 1", "algo-2: 2"]


RENDEZVOUS = """
import os, socket, sys, time
hosts, host = os.environ["SM_HOSTS"], os.environ["SM_CURRENT_HOST"]
os.mkdir("/workspace")
open("/tmp/done." + host, "x").close()
if host == "algo-1":
    # As torchrun's store and mpirun's launcher: every address, one port that all jobs agree on.
    with socket.create_server(("", 7777)) as server, server.accept()[0] as worker:
        worker.sendall(socket.gethostname().encode())
        print("rank 0 met", worker.recv(100).decode(), hosts)
else:
    deadline = time.monotonic() + 30
    while True:
        try:
            master = socket.create_connection(("algo-1", 7777))
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    name = master.recv(100).decode()
    assert socket.gethostbyname(name) == socket.gethostbyname("algo-1") == master.getpeername()[0]
    master.sendall(host.encode())
"""


@pytest.mark.needs("network namespaces")
def test_two_distributed_jobs_at_once(world: World) -> None:
    """The toolkit's `train` on two hosts each; both jobs take the same port and the same paths."""
    two = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    jobs = [world.script_mode(RENDEZVOUS, ResourceConfig=two) for _ in range(2)]

    async def main() -> list[Outcome]:
        async with world.runner() as runner:
            return await asyncio.wait_for(asyncio.gather(*(runner.run(job) for job in jobs)), 80)

    outcomes = asyncio.run(main())
    assert [outcome.failure_reason for outcome in outcomes] == [None, None]
    met = [line for line in world.lines if "rank 0 met" in line]
    assert met == ['algo-1: rank 0 met algo-2 ["algo-1","algo-2"]'] * 2
    assert not os.path.exists("/workspace")


def test_first_failure_ends_the_other_hosts(world: World) -> None:
    command = "grep -q 'host\": \"algo-2' /opt/ml/input/config/resourceconfig.json && exit 5; sleep 60"
    job = world.training(
        ["/bin/sh", "-c", command],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 3, "VolumeSizeInGB": 1},
    )
    outcome = world.run(job, grace=0.2)
    assert outcome.failure_reason == "AlgorithmError: , exit code: 5"


def test_checkpoints_come_and_go(world: World) -> None:
    world.put("checkpoints/old", "1")
    job = world.training(
        ["/bin/sh", "-c", "cat /opt/ml/checkpoints/old > /opt/ml/checkpoints/new; exit 1"],
        CheckpointConfig={"S3Uri": world.uri("checkpoints")},
    )
    world.run(job)
    assert world.get(world.uri("checkpoints/new")) == b"1"


def test_installing_into_the_image_stays_in_the_job(world: World) -> None:
    mark = world.image / "smssh-was-here"
    outcome = world.run(world.training(["/bin/sh", "-c", f"touch '{mark}' && test -e '{mark}'"]))
    assert outcome.status == "Completed"
    assert not mark.exists()


def test_role_in_the_message(world: World) -> None:
    channel = {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": world.uri("nothing/")}},
    }
    assert ROLE in (world.run(world.training(["true"], InputDataConfig=[channel])).failure_reason or "")
