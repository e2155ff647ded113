"""What the tests of the job runner share: a real moto for S3 and logs, the image environment, requests."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.jobs.manager import Job, JobRunner, Outcome
from smssh_plugin.local.removal import remove_tree
from smssh_plugin.local.sandbox.container import check_support
from smssh_plugin.local.state import process_birth
from tests import needs
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
ROLE = "arn:aws:iam::123456789012:role/test"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


def image_environment() -> Path:
    """The image environment; the test is skipped if there is no environment."""
    needs.program("image environment")
    return needs.IMAGE


OURS = ("/opt/ml", "pytest-of-", "smssh")
"""In the mount points of jobs, and of nobody else's mounts, which come and go."""


def mounts() -> str:
    """What is mounted on this machine where jobs are."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if any(part in line for part in OURS) and "docker" not in line)


def processes(marker: str) -> list[int]:
    """The processes whose command line holds a marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker in (folder / "cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(folder.name))
    return found


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with what tells each from a later one of its number."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found[child] = process_birth(child) or ""
            waiting.append(child)
    return found


def network_namespaces(pids: Iterable[int]) -> set[str]:
    """The network namespaces of some processes."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def archive(files: dict[str, str]) -> bytes:
    """A tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class World:
    """S3, logs and a folder."""

    root: Path
    endpoint: str
    s3: Any
    logs: Any
    bucket: str
    image: Path
    statuses: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def runner(self, **options: Any) -> AsyncIterator[JobRunner]:
        """A job runner that is closed at the end."""
        runner = JobRunner(
            self.root,
            self.s3,
            self.logs,
            self.image,
            {**KEYS, "AWS_ENDPOINT_URL": self.endpoint},
            **{"grace": 10.0, "serve_grace": 10.0, "ping_deadline": 30.0, **options},
        )
        runner.on_status(lambda job, status, _: self.statuses.append((job.name, status)))
        runner.on_line(lambda _, host, line: self.lines.append(f"{host}: {line}"))
        try:
            yield runner
        finally:
            await runner.close()

    def run(self, job: Job, **options: Any) -> Outcome:
        """Run one job to its end."""

        async def main() -> Outcome:
            async with self.runner(**options) as runner:
                return await asyncio.wait_for(runner.run(job), LIMIT)

        return asyncio.run(main())

    def put(self, key: str, data: bytes | str) -> str:
        """Put an object; return its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data.encode() if isinstance(data, str) else data)
        return self.uri(key)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        """An object's content."""
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in answer.get("Contents", [])]

    def unpack(self, uri: str) -> dict[str, str]:
        """The members of a tar.gz."""
        with tarfile.open(fileobj=io.BytesIO(self.get(uri))) as tar:
            return {
                member.name.removeprefix("./"): tar.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]
                for member in tar.getmembers()
                if member.isfile()
            }

    def events(self, group: str, prefix: str) -> list[str]:
        """The messages of the log streams of a job."""
        messages = []
        streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
        for stream in streams:
            token: dict[str, str] = {}
            while True:
                answer = self.logs.get_log_events(
                    logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True, **token
                )
                messages += [event["message"] for event in answer["events"]]
                if not answer["events"] or answer["nextForwardToken"] == token.get("nextToken"):
                    break
                token = {"nextToken": answer["nextForwardToken"]}
        return messages

    def training(self, argv: list[str] | None = None, **changes: Any) -> Job:
        """A training job: a command, or script mode."""
        name = f"train-{uuid.uuid4().hex[:8]}"
        specification: dict[str, Any] = {"TrainingImage": "image", "TrainingInputMode": "File"}
        if argv:
            specification |= {"ContainerEntrypoint": argv[:1]}
            if argv[1:]:
                specification |= {"ContainerArguments": argv[1:]}
        request = {
            "TrainingJobName": name,
            "AlgorithmSpecification": specification,
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": self.uri("out")},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            **changes,
        }
        return Job("training", name, f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}", request)

    def script_mode(self, script: str, **changes: Any) -> Job:
        """A training job as SDK v2 sends it: the toolkit's `train` runs a script from S3."""
        source = archive({"train.py": textwrap.dedent(script)})
        uri = self.put(f"code/{uuid.uuid4().hex}/sourcedir.tar.gz", source)
        parameters = {
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": f'"{uri}"',
            "sagemaker_region": '"us-east-1"',
            "epochs": "3",
        }
        return self.training(HyperParameters=parameters, **changes)

    def processing(self, argv: list[str], **changes: Any) -> Job:
        name = f"process-{uuid.uuid4().hex[:8]}"
        request = {
            "ProcessingJobName": name,
            "AppSpecification": {"ImageUri": "image", "ContainerEntrypoint": argv},
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
            },
            "RoleArn": ROLE,
            **changes,
        }
        arn = f"arn:aws:sagemaker:us-east-1:123456789012:processing-job/{name}"
        return Job("processing", name, arn, request)


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that another user can reach: pytest's own is below one that is closed to all but us."""
    folder = Path(tempfile.mkdtemp(prefix="smssh-test-"))
    try:
        yield folder
    finally:
        remove_tree(folder)


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def world(moto_endpoint: str, tmp_path: Path) -> Iterator[World]:
    """S3, logs and a folder; afterwards nothing may be mounted, and nothing left of the jobs but logs."""
    try:
        check_support()
    except SmsshError as error:
        needs.missing("namespaces", error.message)
    image = image_environment()
    session = boto3.Session()  # boto3's default one would stay for the tests of other files

    def client(name: Literal["s3", "logs"]) -> Any:
        return session.client(
            name,
            endpoint_url=moto_endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(max_pool_connections=32, retries={"max_attempts": 2}),
        )

    s3 = client("s3")
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    before = mounts()
    root = tmp_path / "state"
    yield World(root, moto_endpoint, s3, client("logs"), bucket, image)
    assert mounts() == before
    left = [path for path in root.glob("jobs/*/*") if path.suffix != ".log"]
    assert left == []


@dataclass(frozen=True)
class Somebody:
    """How to run Python as an ordinary user."""

    prefix: list[str]
    python: str

    def run(
        self, *arguments: str, folder: Path, timeout: float, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python to its end; standard output and error come together."""
        return subprocess.run(
            [*self.prefix, self.python, *arguments],
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.environ["PATH"], **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )


def somebody(folder: Path) -> Somebody:
    """An ordinary user: us, or `nobody` when we are root.

    The test is skipped when that user cannot run a Python with our packages.

    Args:
        folder: becomes that user's.
    """
    if os.geteuid() != 0:
        return Somebody([], sys.executable)
    needs.program("setpriv")
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    os.chown(folder, 65534, 65534)
    # An interpreter below a home folder is not for nobody; one of the same version will do, in an environment that
    # has our packages. (On PYTHONPATH they would be missing in the fake agent, which does not look there.)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        made = Path(tempfile.mkdtemp(prefix="python-", dir=folder))
        made.chmod(0o755)
        packages = made / "lib" / name / "site-packages"
        packages.mkdir(parents=True)
        (packages / "ours.pth").write_text("\n".join([str(REPOSITORY), *filter(None, sys.path)]) + "\n")
        (made / "pyvenv.cfg").write_text(f"home = {Path(python).resolve().parent}\n")
        (made / "bin").mkdir()
        (made / "bin" / "python").symlink_to(Path(python).resolve())
        try:
            done = subprocess.run(
                [
                    *prefix,
                    *("sh", "-c", 'exec "$0" -I -c "import boto3, smssh_plugin.errors"'),
                    made / "bin" / "python",
                ],
                capture_output=True,
                timeout=LIMIT,
                check=False,
                cwd="/",
            )
        except OSError:
            continue
        if done.returncode == 0:
            return Somebody(prefix, str(made / "bin" / "python"))
    return needs.does_not_apply("an ordinary user cannot reach a Python with our packages")


def image_for(who: Somebody, folder: Path) -> Path:
    """An image environment that an ordinary user can reach, with the packages of ours."""
    ours = image_environment()
    if not who.prefix:
        return ours
    packages = next((ours / "lib").glob("python3.*")) / "site-packages"
    version = packages.parent.name
    if version != f"python{sys.version_info.major}.{sys.version_info.minor}":
        needs.does_not_apply(f"no {version} for an ordinary user")
    image = folder / "image"
    (image / "bin").mkdir(parents=True)
    mine = image / "lib" / version / "site-packages"
    mine.mkdir(parents=True)
    (mine / "ours.pth").write_text(f"{packages}\n")
    (image / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        (image / "bin" / name).symlink_to(who.python)
    train = image / "bin" / "train"
    train.write_text(
        f"#!{image}/bin/python\nimport sys\nfrom sagemaker_training.cli.train import main\nsys.exit(main())\n"
    )
    train.chmod(0o755)
    return image
