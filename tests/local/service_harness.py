"""The local emulator's service side on a free port, in a thread, with a runner of jobs that a test steers.

What a job does is said by its `Environment`: OUTCOME is succeed (default), fail, internal or capacity (the service's
own failures), hold (until the test calls `release`, or it is stopped) or stubborn (ends as Completed although it is
stopped); with commas, what the first, second, ... attempt of a step does. LINES is what it writes to its log, with
{name} for a hyperparameter.
"""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from aiohttp import web_app
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.moto_api._internal import moto_api_backend

from smssh_plugin.local.certificate import Certificate
from smssh_plugin.local.gateway import Gateway, listen
from smssh_plugin.local.iam.enforcement import Enforcement
from smssh_plugin.local.jobs.kinds import Job, Outcome
from smssh_plugin.local.keyring import Key, Keyring
from smssh_plugin.local.lambda_functions import Functions
from smssh_plugin.local.moto_backend import MotoBackend
from smssh_plugin.local.outgoing import Outgoing
from smssh_plugin.local.sagemaker.sagemaker_service import SageMaker
from smssh_plugin.local.sessions.session_service import SessionService
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smssh_plugin.local.iam.account import Account

ROLE = "arn:aws:iam::123456789012:role/SageMakerRole"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/job:1"
FAILURES = {
    "internal": "InternalServerError: We encountered an internal error. Please try again.",
    "capacity": "CapacityError: Unable to provision requested ML compute capacity. "
    "Please retry using a different ML instance type.",
}
"""FailureReasons of jobs that are not at fault."""
KEY = Key("AKIATESTTESTTESTTEST", "secret")
"""The credentials of the service's caller, which an emulator has at random."""
PROXY = "password"


@dataclass
class SteeredRunner:
    """Runs no process: ends each job as its environment says."""

    s3: Any
    jobs: list[Job] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most: int = 0
    stopped: set[str] = field(default_factory=set)
    debugged: list[tuple[str, bool]] = field(default_factory=list)
    usual: str = "succeed"
    """The outcome of jobs that say none."""
    released: dict[str, asyncio.Event] = field(default_factory=dict)
    line: Callable[[Job, str, str], None] | None = None

    async def run(self, job: Job) -> Outcome:
        began = time.time()
        self.jobs.append(job)
        self.running.add(job.name)
        self.most = max(self.most, len(self.running))
        gate = self.released.setdefault(job.name, asyncio.Event())
        environment = job.request.get("Environment", {})
        outcomes = environment.get("OUTCOME", self.usual).split(",")
        tags = job.request.get("Tags") or []
        earlier = sum(other.request.get("Tags") == tags for other in self.jobs[:-1]) if tags else 0
        what = outcomes[min(earlier, len(outcomes) - 1)]
        await asyncio.sleep(float(environment.get("SECONDS", "0.02")))
        for line in environment.get("LINES", "").splitlines():
            assert self.line is not None
            self.line(job, "algo-1", line.format(**job.request.get("HyperParameters", {})))
        if what in ("hold", "stubborn"):
            await gate.wait()
        self.running.discard(job.name)
        times = {"started": began, "ended": time.time()}
        if job.name in self.stopped and what != "stubborn":
            return Outcome("Stopped", "Stopped", **times)
        if what == "fail":
            reason = "AlgorithmError: ExecuteUserScriptError:\nExitCode 1, exit code: 1"
            return Outcome("Failed", "Failed", failure_reason=reason, exit_code=1, **times)
        if what in FAILURES:
            return Outcome("Failed", "Failed", failure_reason=FAILURES[what], **times)
        if job.kind == "training":
            output = job.request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
            model = f"{output}/{job.name}/output/model.tar.gz"
            return Outcome("Completed", "Completed", exit_code=0, model_artifacts=model, **times)
        if job.kind == "processing" and "REPORT" in environment:
            uri = job.request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            body = environment["REPORT"].encode()
            await asyncio.to_thread(self.s3.put_object, Bucket=bucket, Key=f"{key}/report.json", Body=body)
        return Outcome("Completed", "Completed", exit_code=0, **times)

    async def stop(self, name: str, kind: Any = None) -> None:
        self.stopped.add(name)
        self.released.setdefault(name, asyncio.Event()).set()

    async def remote_debug(self, name: str, enabled: bool) -> None:
        self.debugged.append((name, enabled))

    async def close(self) -> None:
        for name in list(self.running):
            await self.stop(name)


class _S3Auth(S3SigV4Auth):
    """What a request says of its payload stays as it is."""

    def payload(self, request: Any) -> str:
        return str(request.context.get("said") or super().payload(request))


def signed(
    method: str,
    url: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    service: str,
    key: Key = KEY,
) -> dict[str, str]:
    """The headers of a request, signed by botocore."""
    request = AWSRequest(method, url, data=body, headers=headers or {})
    request.context["said"] = (headers or {}).get("X-Amz-Content-SHA256")
    kind = _S3Auth if service == "s3" else SigV4Auth
    kind(Credentials(key.access_key, key.secret_key, key.token), service, "us-east-1").add_auth(request)
    return dict(request.headers.items())


class Service:
    """The running service, and clients of it."""

    def __init__(self, secure: Path | None = None, iam: Account | None = None) -> None:
        """`secure` is a folder for the certificate of agents' channels, where TLS is wanted for them.

        `iam` is the account whose policies are enforced.
        """
        self._account = iam
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._secure = secure
        self._folder = tempfile.TemporaryDirectory()

    def start(self) -> None:
        self._thread.start()
        self.keyring = Keyring(KEY)
        self.moto = MotoBackend()
        self.moto.start()
        # What moto holds belongs to the process, not to its server.
        moto_api_backend.reset()
        s3 = self.moto.client("s3")
        self.runner = SteeredRunner(s3)

        async def read_object(bucket: str, key: str) -> bytes:
            found = await asyncio.to_thread(s3.get_object, Bucket=bucket, Key=key)
            return found["Body"].read()

        async def build() -> None:
            self.sessions = SessionService()
            functions = Functions(self.moto.function, Path(self._folder.name), environment, self.keyring)
            self.sagemaker_service = SageMaker(self.runner, read_object, self.sessions.faults, functions)
            self.runner.line = self.sagemaker_service.jobs.line
            self.iam = (
                Enforcement(self._account, self.keyring, self.sessions, self.sagemaker_service.store)
                if self._account is not None
                else None
            )
            self.gateway = Gateway(
                self.sagemaker_service, self.sessions, self.moto, self.keyring, self.outgoing, self.iam
            )
            await self.gateway.start(listener, secure)

        secure = None
        folder = self._secure or Path(self._folder.name)
        certificate = Certificate.make(folder)
        self.outgoing = Outgoing(PROXY, certificate)
        if self._secure is not None:
            self.authority = certificate.authority
            secure = (listen(0), certificate.context())
            self.channels = f"https://127.0.0.1:{secure[0].getsockname()[1]}"
        listener = listen(0)
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
        self.do(build())
        self.sessions.base_url = self.endpoint

    @functools.cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @functools.cached_property
    def s3(self) -> Any:
        return self.client("s3")

    def stop(self) -> None:
        async def take_down() -> None:
            await self.sagemaker_service.close()
            await self.sessions.close()
            await self.gateway.stop()
            # Requests of clients that are not there any more.
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.do(take_down())
        self.moto.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()
        self._folder.cleanup()
        # aiohttp keeps what it made for the last 1024 handlers, and so all that each emulator held.
        web_app._cached_build_middleware.cache_clear()

    def do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT)

    @staticmethod
    @functools.cache
    def session() -> boto3.session.Session:
        return boto3.session.Session(
            aws_access_key_id=KEY.access_key, aws_secret_access_key=KEY.secret_key, region_name="us-east-1"
        )

    def client(self, service: str, **settings: Any) -> Any:
        config = Config(proxies={}, retries={"max_attempts": 1}, **settings)
        return self.session().client(service, endpoint_url=self.endpoint, config=config)

    def release(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self.runner.released[name].set)

    def job_status(self, kind: str, name: str, status: str) -> dict[str, Any]:
        """Wait for a status of a job; answers its description."""
        describe = getattr(self.sagemaker, f"describe_{kind.lower()}_job")

        def ready() -> Any:
            found = describe(**{f"{kind}JobName": name})
            return found if found[f"{kind}JobStatus"] == status else None

        return until(ready, f"{kind} job {name} is {status}")

    def pipeline(self, definition: dict[str, Any], name: str = "pipe", **more: Any) -> str:
        """Make a pipeline; answers its ARN."""
        text = json.dumps(definition)
        made = self.sagemaker.create_pipeline(
            PipelineName=name,
            RoleArn=ROLE,
            PipelineDefinition=text,
            ClientRequestToken="t" * 32 + name,
            **more,
        )
        return made["PipelineArn"]

    def start_pipeline(self, name: str = "pipe", **more: Any) -> str:
        """Start an execution; answers its ARN."""
        return self.sagemaker.start_pipeline_execution(PipelineName=name, **more)["PipelineExecutionArn"]

    def execution(self, arn: str, *statuses: str) -> dict[str, Any]:
        """Wait until an execution has one of the statuses; answers its description."""

        def ready() -> Any:
            found = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            return found if found["PipelineExecutionStatus"] in statuses else None

        return until(ready, f"{arn} is {statuses}")

    def steps(self, arn: str) -> dict[str, dict[str, Any]]:
        """The execution's steps, by name."""
        found = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)
        return {step["StepName"]: step for step in found["PipelineExecutionSteps"]}


@contextmanager
def running() -> Iterator[Service]:
    """A service of the test's own."""
    service = Service()
    service.start()
    try:
        yield service
    finally:
        service.stop()


def training(**more: Any) -> dict[str, Any]:
    """The Arguments of a training step."""
    return {
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        **more,
    }


def processing(**more: Any) -> dict[str, Any]:
    """The Arguments of a processing step."""
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
    output = {"S3Uri": "s3://bucket/out", "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"}
    return {
        "ProcessingResources": {"ClusterConfig": cluster},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "x.py"]},
        "RoleArn": ROLE,
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": output}]},
        **more,
    }


def transform(**more: Any) -> dict[str, Any]:
    """The Arguments of a transform step."""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}}
    return {
        "ModelName": "model",
        "TransformInput": {"DataSource": source, "ContentType": "text/csv"},
        "TransformOutput": {"S3OutputPath": "s3://bucket/scored"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    }


def step(name: str, kind: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A step of a definition."""
    return {"Name": name, "Type": kind, "Arguments": arguments, **more}


def definition(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition."""
    return {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(steps), **more}
