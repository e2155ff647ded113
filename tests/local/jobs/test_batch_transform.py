"""Transform jobs of the local emulator: the toolkit's real handlers behind its `serve`."""

from __future__ import annotations

import asyncio
import gzip
import io
import textwrap
import uuid
from typing import Any

import pytest

from smssh_plugin import SSHOptions
from smssh_plugin.local.jobs.batch_transform import Plan, payloads
from smssh_plugin.local.jobs.kinds import Job, Outcome
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.repack_step import with_repack_step
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from tests.local.jobs_support import World, archive, processes
from tests.waiting import LIMIT

pytestmark = pytest.mark.timeout(90)

HANDLERS = """
import os
calls = 0
def model_fn(model_dir):
    print("loaded", sorted(os.listdir(model_dir)), os.environ["COLOUR"])
    return float(open(os.path.join(model_dir, "weights.txt")).read())
def input_fn(data, content_type):
    assert content_type == "text/csv", content_type
    return [float(line) for line in data.splitlines()]
def predict_fn(data, model):
    global calls
    calls += 1
    print("call", calls, len(data))
    return [model * number for number in data]
def output_fn(prediction, accept):
    return "\\n".join("{:g}".format(number) for number in prediction)
"""


def _model(world: World, code: str = HANDLERS, **changes: Any) -> dict[str, Any]:
    files = {"weights.txt": "2", "code/inference.py": textwrap.dedent(code)}
    uri = world.put(f"models/{uuid.uuid4().hex}/model.tar.gz", archive(files))
    container = {
        "Image": "image",
        "ModelDataUrl": uri,
        "Environment": {"COLOUR": "red", "SHAPE": "round"},
        **changes,
    }
    return {"ModelName": "model", "PrimaryContainer": container, "ExecutionRoleArn": "role"}


def _job(
    world: World,
    model: dict[str, Any] | None,
    *,
    uri: str,
    split: str = "Line",
    assemble: str = "Line",
    **changes: Any,
) -> Job:
    name = f"transform-{uuid.uuid4().hex[:8]}"
    request = {
        "TransformJobName": name,
        "ModelName": "model",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
            "ContentType": "text/csv",
            "SplitType": split,
        },
        "TransformOutput": {"S3OutputPath": world.uri("out"), "AssembleWith": assemble},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "Environment": {"COLOUR": "green"},
        **changes,
    }
    return Job(
        "transform", name, f"arn:aws:sagemaker:us-east-1:123456789012:transform-job/{name}", request, model
    )


def _calls(world: World) -> list[str]:
    return [line.removeprefix("algo-1: ") for line in world.lines if ": call " in line]


@pytest.mark.parametrize(
    ("strategy", "calls"),
    [("MultiRecord", ["call 1 3"]), ("SingleRecord", ["call 1 1", "call 2 1", "call 3 1"])],
)
def test_lines(world: World, strategy: str, calls: list[str]) -> None:
    world.put("in/a.csv", "1\n2\n3")
    job = _job(world, _model(world), uri=world.uri("in/a.csv"), BatchStrategy=strategy)
    outcome = world.run(job)
    assert (outcome.status, outcome.failure_reason) == ("Completed", None)
    assert world.get(world.uri("out/a.csv.out")) == b"2\n4\n6\n"
    assert _calls(world) == calls
    # The environment of the job over that of the model.
    assert "algo-1: loaded ['code', 'weights.txt'] green" in world.lines
    strategy_word = {"MultiRecord": "MULTI_RECORD", "SingleRecord": "SINGLE_RECORD"}[strategy]
    events = world.events("/aws/sagemaker/TransformJobs", job.name)
    assert any(
        event.endswith(f"MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy={strategy_word}")
        for event in events
    )


def test_a_model_that_our_own_step_repacked(world: World) -> None:
    """`repack=True`: the training job that is added, and a transform job of the model that comes of it."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7tHAuphTTyE5a9CYRfcOTPNUOEeZ0zJlOA+XjiM8Wo tests"
    made = build(SSHOptions(transport="none", ssh_server="asyncssh"), [key])
    for name, data in made.files.items():
        world.put(f"bundles/{made.digest}/{name}", data)
    uri = world.uri(f"bundles/{made.digest}/")
    # Its supervisor may start later than such a short job ends, so the server itself says whether SSH came with it.
    code = (
        textwrap.dedent(HANDLERS)
        + "\nimport sys\nprint('entered', '_smssh_boot' in sys.modules, flush=True)\n"
    )
    request = add_ssh("model", _model(world, code), Injection(uri, transport="none", repacked=True))
    step = {"Name": "Model", "Type": "Model", "Arguments": request}
    repack, model_step = with_repack_step(step, uri, world.uri("repacked/"))
    done = world.run(
        Job("training", "repack", "arn:repack", {"TrainingJobName": "repack", **repack["Arguments"]})
    )
    assert (done.status, done.failure_reason) == ("Completed", None)
    assert done.model_artifacts == world.uri("repacked/repack/output/model.tar.gz")
    found = world.unpack(done.model_artifacts)
    assert {"weights.txt", "code/inference.py", "code/smssh/sitecustomize.py", "code/smssh/smssh.zip"} <= set(
        found
    )
    assert model_step["Arguments"]["PrimaryContainer"]["ModelDataUrl"] == {
        "Get": f"Steps.{repack['Name']}.ModelArtifacts.S3ModelArtifacts"
    }
    container = {**model_step["Arguments"]["PrimaryContainer"], "ModelDataUrl": done.model_artifacts}
    model = {**model_step["Arguments"], "PrimaryContainer": container}
    world.put("in/a.csv", "1\n2\n3")
    job = _job(world, model, uri=world.uri("in/a.csv"), Environment={"COLOUR": "green", "SMSSH_ENABLE": "1"})
    outcome = world.run(job)
    assert (outcome.status, outcome.failure_reason) == ("Completed", None)
    assert world.get(world.uri("out/a.csv.out")) == b"2\n4\n6\n"
    assert any("entered True" in line for line in world.lines), world.lines


def test_whole_objects_of_a_prefix(world: World) -> None:
    for name in ("a.csv", "deep/b.csv", "deep/er/c.csv"):
        world.put(f"in/{name}", "5\n")
    world.put("in/empty/", "")
    job = _job(world, _model(world), uri=world.uri("in"), split="None", assemble="None")
    assert world.run(job).status == "Completed"
    assert world.keys("out/") == ["out/a.csv.out", "out/deep/b.csv.out", "out/deep/er/c.csv.out"]
    assert world.get(world.uri("out/deep/b.csv.out")) == b"10"


def test_several_hosts_and_requests_at_once(world: World) -> None:
    for number in range(4):
        world.put(f"in/{number}", "".join(f"{number * 100 + line}\n" for line in range(20)))
    job = _job(
        world,
        _model(world),
        uri=world.uri("in/"),
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=4,
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
    )
    assert world.run(job).status == "Completed"
    for number in range(4):
        expected = "".join(f"{2 * (number * 100 + line)}\n" for line in range(20))
        assert world.get(world.uri(f"out/{number}.out")).decode() == expected
    assert {line.split(":")[0] for line in world.lines if ": call " in line} == {"algo-1", "algo-2"}


SERVER = """
import http.server, os
open("/tmp/one", "x").close()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["TRANSFORM_JOB_NAME"].encode() + b" " + body)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.mark.needs("network namespaces")
def test_servers_on_port_8080_at_once(world: World) -> None:
    """Servers of one's own, which know no other port; two jobs, one of them with two hosts."""
    world.put("in/a", "1\n")
    world.put("in/b", "2\n")
    program = world.root / "bin" / "serve"
    jobs = []
    for count in (1, 2):
        resources = {"InstanceType": "ml.m5.large", "InstanceCount": count}
        job = _job(world, _model(world), uri=world.uri("in/"), split="None", TransformResources=resources)
        job.request["TransformOutput"] = {"S3OutputPath": world.uri(f"out/{count}")}
        jobs.append(job)

    async def main() -> list[Outcome]:
        async with world.runner() as runner:
            program.write_text(f"#!/usr/bin/env python3\n{SERVER}")
            return await asyncio.wait_for(asyncio.gather(*(runner.run(job) for job in jobs)), LIMIT)

    assert [outcome.failure_reason for outcome in asyncio.run(main())] == [None, None]
    for job, count in zip(jobs, (1, 2), strict=True):
        for name, line in (("a", "1\n"), ("b", "2\n")):
            assert world.get(world.uri(f"out/{count}/{name}.out")).decode() == f"{job.name} {line}"


def test_bad_record_fails_its_object_and_the_job(world: World) -> None:
    world.put("in/bad.csv", "1\nx\n")
    world.put("in/good.csv", "1\n2\n")
    job = _job(world, _model(world), uri=world.uri("in/"))
    outcome = world.run(job)
    assert outcome.status == "Failed"
    assert outcome.failure_reason == "AlgorithmError: See job logs for more information"
    # As the service has it: no output for the bad file, the others are there.
    assert world.keys("out/") == ["out/good.csv.out"]
    events = world.events("/aws/sagemaker/TransformJobs", job.name)
    said = f"{world.bucket}/in/bad.csv: Bad HTTP status received from algorithm: 500"
    assert any(event.endswith(said) for event in events)
    assert any("could not convert string to float: 'x'" in event for event in events)


def test_objects_that_are_no_gzip_fail_and_the_others_do_not(world: World) -> None:
    good = gzip.compress(b"1\n2\n", mtime=0)
    faults = {
        "a-plain": (b"1\n2\n", "Not a gzipped file (b'1\\n')"),
        "b-cut": (good[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        "c-deflate": (good[:10] + b"\xff" * 20, "Error -3 while decompressing data: invalid block type"),
        "d-checksum": (good[:-8] + b"\0" * 8, "CRC check failed"),
    }
    for name, (data, _) in faults.items():
        world.put(f"in/{name}", data)
    world.put("in/z-good", good)
    job = _job(world, _model(world), uri=world.uri("in/"))
    job.request["TransformInput"]["CompressionType"] = "Gzip"
    outcome = world.run(job)
    assert outcome.failure_reason == "ClientError: See job logs for more information"
    assert world.keys("out/") == ["out/z-good.out"]
    assert world.get(world.uri("out/z-good.out")) == b"2\n4\n"
    events = world.events("/aws/sagemaker/TransformJobs", job.name)
    for name, (_, fault) in faults.items():
        said = f"{world.bucket}/in/{name}: Not the Gzip that CompressionType says: {fault}"
        assert any(said in event for event in events)


def test_model_that_does_not_load(world: World) -> None:
    world.put("in/a.csv", "1\n")
    model = _model(world, "def model_fn(model_dir):\n    raise RuntimeError('weights are of version 1')\n")
    outcome = world.run(_job(world, model, uri=world.uri("in/")))
    assert (outcome.status, outcome.exit_code) == ("Failed", 1)
    assert outcome.failure_reason == "AlgorithmError: See job logs for more information"
    assert "algo-1: RuntimeError: weights are of version 1" in world.lines


def test_server_that_never_answers(world: World) -> None:
    world.put("in/a.csv", "1\n")
    model = _model(world, "import time\ndef model_fn(model_dir):\n    time.sleep(60)\n")
    outcome = world.run(_job(world, model, uri=world.uri("in/")), ping_deadline=1.0, serve_grace=0.1)
    assert outcome.failure_reason == "AlgorithmError: Unable to get response from algorithm"


def test_server_that_dies_at_work(world: World) -> None:
    world.put("in/a.csv", "1\n")
    code = HANDLERS.replace("calls += 1", "os._exit(9)")
    outcome = world.run(_job(world, _model(world, code), uri=world.uri("in/")))
    assert (outcome.status, outcome.exit_code) == ("Failed", 9)


def test_stop(world: World) -> None:
    world.put("in/a.csv", "1\n")
    model = _model(world, HANDLERS.replace("calls += 1", "import time; print('asleep'); time.sleep(60)"))
    job = _job(world, model, uri=world.uri("in/"))

    async def main() -> None:
        async with world.runner() as runner:
            task = asyncio.create_task(runner.run(job))
            for _ in range(1000):
                if "algo-1: asleep" in world.lines or task.done():
                    break
                await asyncio.sleep(0.02)
            await runner.stop(job.name)
            assert (await asyncio.wait_for(task, 20)).status == "Stopped"

    asyncio.run(main())
    assert world.keys("out/") == []
    assert processes(str(world.root / "bin" / "serve")) == []


def test_additional_data_and_program(world: World) -> None:
    world.put("bundle/run.sh", "echo hello")
    world.put("in/a.csv", "1\n")
    model = _model(
        world,
        HANDLERS,
        AdditionalModelDataSources=[
            {
                "ChannelName": "smssh",
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": world.uri("bundle/"),
                    "CompressionType": "None",
                },
            }
        ],
    )
    code = (
        "import os\n"
        "def model_fn(folder):\n"
        "    return open('/opt/ml/additional-model-data-sources/smssh/run.sh').read()\n"
        "def transform_fn(model, data, content_type, accept):\n"
        "    return model + os.environ['SHAPE'] + '|' + data\n"
    )
    files = {"code/other.py": code, "code/requirements.txt": "numpy\n"}
    model["PrimaryContainer"]["ModelDataUrl"] = world.put("models/other/model.tar.gz", archive(files))
    model["PrimaryContainer"]["Environment"]["SAGEMAKER_PROGRAM"] = "other.py"
    model["PrimaryContainer"]["Environment"]["SAGEMAKER_SUBMIT_DIRECTORY"] = "/opt/ml/model/code"
    outcome = world.run(_job(world, model, uri=world.uri("in/"), assemble="None"))
    assert outcome.status == "Completed"
    assert world.get(world.uri("out/a.csv.out")) == b"echo helloround|1\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, "the job has no model"),
        ({"split": "RecordIO"}, "SplitType RecordIO is not served"),
        ({"DataProcessing": {"JoinSource": "Input"}}, "DataProcessing is not served"),
        ({"uri": "s3://no-such-bucket-here/x"}, "NoSuchBucket"),
    ],
)
def test_requests_that_cannot_be_served(world: World, changes: dict[str, Any], words: str) -> None:
    world.put("in/a.csv", "1\n")
    arguments = {"model": _model(world), "uri": world.uri("in/"), **changes}
    outcome = world.run(_job(world, **arguments))
    assert outcome.status == "Failed"
    assert words in (outcome.failure_reason or "")


@pytest.mark.parametrize("url", ["models/nothing.tar.gz", "in/a.csv"])
def test_model_that_is_not_there_or_none(world: World, url: str) -> None:
    world.put("in/a.csv", "1\n")
    model = _model(world, ModelDataUrl=world.uri(url))
    outcome = world.run(_job(world, model, uri=world.uri("in/")))
    assert (outcome.failure_reason or "").startswith("ClientError: ")


def _plan(**changes: Any) -> Plan:
    plan = {
        "split": "Line",
        "multi": True,
        "assemble": "None",
        "most_bytes": 4,
        "at_once": 1,
        "content_type": None,
        "accept": None,
        "timeout": 1,
        "retries": 0,
    }
    return Plan(**{**plan, **changes})


@pytest.mark.parametrize(
    ("text", "changes", "bodies"),
    [
        (b"1\n2\n3", {}, [b"1\n2\n", b"3"]),
        (b"1\n2\n3", {"multi": False}, [b"1\n", b"2\n", b"3"]),
        (b"1\n2\n3\n", {"most_bytes": 0}, [b"1\n2\n3\n"]),
        (b"", {}, []),
        (b"\n\n", {}, []),
        (b"1\n2\n", {"split": "None"}, [b"1\n2\n"]),
        (b"", {"split": "None"}, [b""]),
    ],
)
def test_payloads(text: bytes, changes: dict[str, Any], bodies: list[bytes]) -> None:
    assert list(payloads(io.BytesIO(text), _plan(**changes))) == bodies


@pytest.mark.parametrize("split", ["None", "Line"])
def test_payload_that_is_too_large(split: str) -> None:
    with pytest.raises(Exception, match="Too much data for max payload size"):
        list(payloads(io.BytesIO(b"12345\n"), _plan(split=split)))
