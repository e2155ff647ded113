"""Images by name: which folder a job's containers are made of, and what a job of an unknown image is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from smssh_plugin.errors import SmsshError
from smssh_plugin.local import image_views
from smssh_plugin.local.faults import Faults
from smssh_plugin.local.images import CANNOT_PULL, Images, kind_of, names_of, parse
from smssh_plugin.local.sagemaker.sagemaker_service import SageMaker
from smssh_plugin.local.sandbox.container import MACHINE
from smssh_plugin.local.service_error import ServiceError

from .jobs_support import ROLE, archive
from .root_folders import make_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smssh_plugin.local.jobs.manager import Job

    from .jobs_support import World

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
SHOW = ["/bin/sh", "-c", "cat /etc/image"]

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two root folders, `one` and `two`, and one with Python, `py`."""
    folder = tmp_path_factory.mktemp("roots")
    make_root(folder / "one", "one")
    make_root(folder / "two", "two")
    make_root(folder / "py", "py", python=True)
    yield folder
    shutil.rmtree(folder)


def environment(folder: Path, word: str) -> Path:
    """A Python environment whose program `train` says a word."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (folder / "pyvenv.cfg").write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}\n")
    (folder / "bin" / "train").write_text(f"#!/bin/sh\necho {word}\n")
    (folder / "bin" / "train").chmod(0o755)
    return folder


def training(world: World, image: str, argv: list[str] | None = None, **changes: Any) -> Job:
    job = world.training(argv or SHOW, **changes)
    job.request["AlgorithmSpecification"]["TrainingImage"] = image
    return job


def said(world: World, job: Job, **options: Any) -> list[str]:
    """What a job that ends well prints."""
    world.lines.clear()
    outcome = world.run(job, **options)
    assert outcome.status == "Completed", (outcome, world.lines)
    return [line.partition(": ")[2] for line in world.lines]


def test_the_names_of_an_image_the_most_exact_first() -> None:
    assert names_of(f"{ECR}/team/train:1") == [
        f"{ECR}/team/train:1",
        "team/train:1",
        f"{ECR}/team/train",
        "team/train",
    ]
    assert names_of("train") == ["train", "train:latest"]
    assert names_of(f"{ECR}/train")[:3] == [f"{ECR}/train", f"{ECR}/train:latest", "train:latest"]
    digest = "sha256:" + "0" * 64
    assert names_of(f"train:1@{digest}") == [f"train:1@{digest}", "train:1", f"train@{digest}", "train"]
    assert names_of("localhost:5000/train:1") == [
        "localhost:5000/train:1",
        "train:1",
        "localhost:5000/train",
        "train",
    ]
    # What no registry could have: names are compared, and nothing breaks.
    for odd in ("", ":", "@", "a:b:c", "/", "x y\n"):
        assert names_of(odd)[0] == odd


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (["train"], "there is no folder"),
        (["train=FILE"], "is not a folder"),
        (["train=MISSING"], "there is no folder"),
        (["train="], "names no folder"),
        ([""], "names no folder"),
        (["=FOLDER"], "'' is not the name of an image"),
        (["a b=FOLDER"], "'a b' is not the name of an image"),
        (["-x=FOLDER"], "'-x' is not the name of an image"),
        (["train=FOLDER", "train=FOLDER"], "the image train is given twice"),
        (["FOLDER", "FOLDER"], "the default image is given twice"),
    ],
)
def test_what_is_no_image_is_said(tmp_path: Path, values: list[str], word: str) -> None:
    (tmp_path / "file").touch()
    names = {"FOLDER": str(tmp_path), "FILE": str(tmp_path / "file"), "MISSING": str(tmp_path / "missing")}
    for name, path in names.items():
        values = [value.replace(name, path) for value in values]
    with pytest.raises(SmsshError) as caught:
        parse(values)
    assert word in caught.value.message
    assert caught.value.hint
    assert caught.value.status == 2


def test_folders_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "with blank").mkdir(parents=True)
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    choice = parse(["one=home/with blank", "two:1=~/with blank", f"{tmp_path}/a=b", "three=a=b"])
    blank = tmp_path / "home" / "with blank"
    assert choice.named == {"one": blank, "two:1": blank, "three": tmp_path / "a=b"}
    assert choice.default == tmp_path / "a=b"


def test_what_sort_of_image_a_folder_is(tmp_path: Path, roots: Path) -> None:
    assert kind_of(roots / "one") == "root"
    assert kind_of(environment(tmp_path / "env", "x")) == "environment"
    # A root folder's links lead nowhere on this machine; and one may have Python in /bin.
    (tmp_path / "linked" / "etc").mkdir(parents=True)
    (tmp_path / "linked" / "bin").symlink_to("usr/bin")
    (tmp_path / "linked" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "linked" / "bin" / "sh").symlink_to("/nonexistent/busybox")
    (tmp_path / "linked" / "bin" / "python").symlink_to(sys.executable)
    assert kind_of(tmp_path / "linked") == "root"
    # A conda environment may have a shell.
    conda = environment(tmp_path / "conda", "x")
    (conda / "pyvenv.cfg").unlink()
    for name in ("conda-meta", "etc"):
        (conda / name).mkdir()
    (conda / "bin" / "sh").touch()
    assert kind_of(conda) == "environment"
    with pytest.raises(SmsshError, match="own root folder"):
        kind_of(Path("/"))
    with pytest.raises(SmsshError, match=r"no bin/python .* and is not a root folder") as caught:
        kind_of(tmp_path)
    assert "docker export" in (caught.value.hint or "")


def test_a_colon_in_a_path_of_the_path_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(SmsshError, match="which no PATH can hold"):
        kind_of(environment(tmp_path / "a:b", "x"))
    world.root = tmp_path / "state:1"
    with pytest.raises(SmsshError, match="has a ':' in its path"):
        world.run(world.training(["true"]))


def test_an_editable_installation_in_a_folder_that_jobs_have_of_their_own_is_seen(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its finder knows where the package is, sys.path does not; the fake agent imports it all the same."""
    package = Path(image_views.__file__).parents[2]
    copied = tmp_path / "checkout"
    # Others may be writing byte code.
    shutil.copytree(
        package / "smssh_plugin", copied / "smssh_plugin", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(image_views, "_PACKAGES", copied)
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if Path(path or os.curdir).resolve() != package]
    )
    assert said(world, world.training(["ls", str(copied)])) == ["smssh_plugin"]


def test_known_images_only_needs_some(tmp_path: Path) -> None:
    with pytest.raises(SmsshError, match="no job could run"):
        Images(environment(tmp_path / "env", "x"), {}, known_only=True)


def test_each_job_of_a_pipeline_has_its_own_root(world: World, roots: Path) -> None:
    images = {f"{ECR}/team/train:2": roots / "two", "team/train:1": roots / "one", "py": roots / "py"}
    assert said(world, training(world, f"{ECR}/team/train:1"), images=images) == ["one"]
    assert said(world, training(world, f"{ECR}/team/train:2"), images=images) == ["two"]
    processing = world.processing(["python3", "-c", "print(open('/etc/image').read().strip())"])
    processing.request["AppSpecification"]["ImageUri"] = f"{ECR}/py:3"
    assert said(world, processing, images=images) == ["py"]
    # Another tag of a repository that is known by its tags alone has the default.
    other = training(
        world, f"{ECR}/team/train:3", ["/bin/sh", "-c", "command -v python; test ! -e /etc/image"]
    )
    assert said(world, other, images=images) == [f"{world.image}/bin/python"]


def test_a_root_folder_as_the_default(world: World, roots: Path) -> None:
    world.image = roots / "one"
    assert said(world, training(world, "whatever")) == ["one"]
    assert said(world, training(world, "py", SHOW), images={"py": roots / "py"}) == ["py"]


def test_environments_by_name(world: World, tmp_path: Path) -> None:
    images = {name: environment(tmp_path / name, name) for name in ("a", "b")}
    for name in images:
        job = training(world, name, ["train"])
        assert said(world, job, images=images) == [name]


def test_what_a_job_writes_stays_in_it(world: World, roots: Path) -> None:
    script = (
        "touch /new /etc/new && echo changed > /etc/image && rm /bin/uname && chmod 700 /bin/ls"
        " && mkdir -p /opt/x /var/lib/x && cat /etc/image"
    )
    before = sorted((str(path), os.lstat(path).st_mode) for path in (roots / "one").rglob("*"))
    job = training(world, "one", ["/bin/sh", "-c", script])
    assert said(world, job, images={"one": roots / "one"}) == ["changed"]
    assert sorted((str(path), os.lstat(path).st_mode) for path in (roots / "one").rglob("*")) == before
    assert said(world, training(world, "one"), images={"one": roots / "one"}) == ["one"]


def test_what_a_job_in_a_root_folder_has_of_its_own(world: World, roots: Path) -> None:
    """Its /opt/ml, /tmp and processes; of this machine what the fake agent needs, and cannot change it."""
    python = f"{MACHINE}{Path(os.path.realpath(sys.executable)).parent.parent}"
    script = (
        "echo model > /opt/ml/model/x; ls /opt/ml/input; ls -A /var/tmp; readlink /proc/self/exe;"
        f" ls -d {python}; touch {python}/smssh-test-new 2>&1 || echo not written"
    )
    job = training(world, "one", ["/bin/sh", "-c", script])
    lines = said(world, job, images={"one": roots / "one"})
    assert lines[:4] == ["config", "data", "/bin/readlink", python]
    assert "Read-only file system" in lines[4]
    assert lines[5] == "not written"
    assert world.unpack(f"{world.uri('out')}/{job.name}/output/model.tar.gz") == {"x": "model\n"}


def test_the_fake_agent_runs_on_a_system_without_its_libraries(world: World, roots: Path) -> None:
    """Neither Python nor the libraries that ssl needs are in the image; those of this machine are, beside it."""
    assert not list((roots / "one").rglob("libssl*"))
    job = training(
        world, "one", ["/bin/sh", "-c", "amazon-ssm-agent -version; command -v python3 || echo none"]
    )
    assert said(world, job, images={"one": roots / "one"}) == ["SSM Agent version: 3.3.987.0", "none"]


def test_folders_that_are_odd(
    world: World, roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blanks and what overlayfs' options know, behind a link, relative, closed to others, with links in it."""
    odd = tmp_path / "a b,c:d\\e"
    shutil.copytree(roots / "one", odd, symlinks=True)
    odd.chmod(0o700)
    (tmp_path / "link").symlink_to(odd.name)
    # Where these lead on this machine is not where they lead in the container.
    (odd / "opt").symlink_to("/usr/opt")
    (odd / "usr" / "opt").mkdir()
    shutil.rmtree(odd / "var")
    (odd / "var").symlink_to("/usr/var")
    (odd / "usr" / "var").mkdir()
    (odd / "tmp").symlink_to(tmp_path)
    (odd / "dev").symlink_to("/etc")
    (odd / "etc" / "hosts").symlink_to("/etc/image")
    script = "cat /etc/image; ls /opt/; test -c /dev/null; touch /tmp/inside; readlink /opt"
    monkeypatch.chdir(tmp_path)
    for path in (Path(odd.name), Path("link"), tmp_path / "link"):
        job = training(world, "odd", ["/bin/sh", "-ec", script])
        assert said(world, job, images={"odd": path}) == ["one", "ml", "/usr/opt"]
    assert not (tmp_path / "inside").exists()
    assert stat.S_IMODE(odd.stat().st_mode) == 0o700
    mode = training(world, "odd", ["/bin/sh", "-c", "ls -ld / | { read a b; echo $a; }"])
    assert said(world, mode, images={"odd": odd})[0].startswith("drwxr-xr-x")


def test_a_link_is_followed_when_a_job_starts(world: World, roots: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"

    async def main() -> None:
        link.symlink_to(roots / "one")
        async with world.runner(images={"x": link}) as runner:
            assert (await runner.run(training(world, "x"))).status == "Completed"
            link.unlink()
            link.symlink_to(roots / "two")
            assert (await runner.run(training(world, "x"))).status == "Completed"
            link.unlink()
            gone = await runner.run(training(world, "x"))
            assert (gone.status, gone.failure_reason) == ("Failed", f"ClientError: {CANNOT_PULL}")

    asyncio.run(main())
    assert world.lines == ["algo-1: one", "algo-1: two"]


def test_a_folder_that_is_deleted_while_a_job_runs(world: World, roots: Path, tmp_path: Path) -> None:
    """The job goes on with what it has; the emulator ends it in order, and the next one cannot be pulled."""
    folder = shutil.copytree(roots / "one", tmp_path / "gone", symlinks=True)
    script = "echo ready; while ! [ -e /opt/ml/go ]; do :; done; cat /etc/passwd; exit 3"

    async def main() -> list[Any]:
        async with world.runner(images={"gone": folder}) as runner:
            ready = asyncio.Event()
            runner.on_line(lambda *_: ready.set())
            job = training(world, "gone", ["/bin/sh", "-c", script])
            first = asyncio.create_task(runner.run(job))
            await asyncio.wait_for(ready.wait(), 30)
            await asyncio.to_thread(shutil.rmtree, folder)
            (world.root / "jobs" / job.name / "algo-1" / "ml" / "go").touch()
            return [await asyncio.wait_for(first, 30), await runner.run(training(world, "gone"))]

    first, second = asyncio.run(main())
    assert first.failure_reason == "AlgorithmError: , exit code: 3"
    assert second.failure_reason == f"ClientError: {CANNOT_PULL}"


def test_an_unknown_image_is_not_pulled(world: World, roots: Path) -> None:
    options: dict[str, Any] = {"images": {"one": roots / "one"}, "known_images_only": True}
    assert said(world, training(world, f"{ECR}/one:7"), **options) == ["one"]
    for job in (training(world, "other:1"), training(world, f"{ECR}/two")):
        outcome = world.run(job, **options)
        assert (outcome.status, outcome.failure_reason) == ("Failed", f"ClientError: {CANNOT_PULL}")
        assert outcome.started is None
    unnamed = world.training(["/bin/sh", "-c", "command -v python"])
    del unnamed.request["AlgorithmSpecification"]["TrainingImage"]
    assert said(world, unnamed, **options) == [f"{world.image}/bin/python"]


HANDLERS = """
def model_fn(folder): return open("/etc/image").read().strip()
def input_fn(data, content_type): return data
def predict_fn(data, model): return model
def output_fn(prediction, accept): return prediction
"""


def _transform(world: World, image: str) -> Job:
    from smssh_plugin.local.jobs.manager import Job

    world.put("in/a", "x")
    model = world.put("model.tar.gz", archive({"code/inference.py": HANDLERS}))
    name = f"transform-{os.urandom(4).hex()}"
    request = {
        "TransformJobName": name,
        "ModelName": "model",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": world.uri("in")}}
        },
        "TransformOutput": {"S3OutputPath": world.uri(name)},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    containers = {"ModelName": "model", "PrimaryContainer": {"Image": image, "ModelDataUrl": model}}
    return Job(
        "transform",
        name,
        f"arn:aws:sagemaker:us-east-1:123456789012:transform-job/{name}",
        request,
        containers,
    )


def test_a_transform_job_is_of_its_models_image(world: World, roots: Path, tmp_path: Path) -> None:
    """The image's own `serve` runs where it has one, and the emulator's, with the image's Python, where not."""
    own = shutil.copytree(roots / "py", tmp_path / "own", symlinks=True)
    serve = own / "usr" / "local" / "bin" / "serve"
    serve.write_text(
        "#!/usr/local/bin/python3\nfrom http.server import *\nclass H(BaseHTTPRequestHandler):\n"
        " def do_GET(self): self.answer(b'')\n"
        " def do_POST(self): self.answer(open('/etc/image', 'rb').read() + b'by itself')\n"
        " def answer(self, body):\n"
        "  self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()\n"
        "  self.wfile.write(body)\n"
        "HTTPServer(('127.0.0.1', int(__import__('os').environ.get('SAGEMAKER_BIND_TO_PORT', 8080))),"
        " H).serve_forever()\n"
    )
    serve.chmod(0o755)
    toolkit = shutil.copytree(roots / "py", tmp_path / "toolkit", symlinks=True)
    # Not in site-packages, which Debian's Python has under another name.
    packages = next(toolkit.glob("usr/local/lib/python3*"))
    (packages / "sagemaker_inference").mkdir()
    (packages / "sagemaker_inference" / "default_handler_service.py").write_text(
        "class DefaultHandlerService:\n"
        " def initialize(self, context): import inference; self.model = inference.model_fn('')\n"
        " def handle(self, data, context): return [self.model + ' by the toolkit']\n"
    )
    images = {"own": own, "toolkit": toolkit}
    for name, answer in (("own", "py\nby itself"), ("toolkit", "py by the toolkit")):
        job = _transform(world, f"{ECR}/{name}:1")
        outcome = world.run(job, images=images)
        assert outcome.status == "Completed", (outcome, world.lines)
        assert world.get(f"{world.uri(job.name)}/a.out").decode() == answer
    job = _transform(world, "unknown")
    outcome = world.run(job, images=images, known_images_only=True)
    assert outcome.failure_reason == f"ClientError: {CANNOT_PULL}"


def test_what_create_says_of_an_image_that_is_not_in_ecr(world: World, roots: Path) -> None:
    """The words of the service; see images.py for where they were seen."""

    async def main() -> None:
        options: dict[str, Any] = {"images": {"team/train:1": roots / "one"}, "known_images_only": True}
        async with world.runner(**options) as runner:
            sagemaker = SageMaker(runner, _nothing, Faults(), None, runner.images)
            job = training(world, f"{ECR}/other/train:1").request
            with pytest.raises(ServiceError) as caught:
                await sagemaker.handle("CreateTrainingJob", job)
            pull = "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer"
            words = (
                "Cannot find repository: other/train in registry ID: 123456789012 Please check if your ECR repository"
                f" exists and role {ROLE} has proper pull permissions for SageMaker: {pull}"
            )
            assert (caught.value.code, caught.value.message) == ("ValidationException", words)
            request = world.processing(["true"]).request
            request["AppSpecification"]["ImageUri"] = f"{ECR}/other/train"
            with pytest.raises(ServiceError, match="Cannot find repository: other/train in registry ID"):
                await sagemaker.handle("CreateProcessingJob", request)
            model = {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": f"{ECR}/x:1"}}
            with pytest.raises(ServiceError, match=f"Requested image {ECR}/x:1 not found."):
                await sagemaker.handle("CreateModel", model)
            model["PrimaryContainer"] = {"Image": f"{ECR}/team/train:1"}
            await sagemaker.handle("CreateModel", model)
            # A tag that is not there, and what is not in ECR, fails when the job starts.
            for image in (f"{ECR}/team/train:2", "elsewhere.example.com/x"):
                job = training(world, image).request
                await sagemaker.handle("CreateTrainingJob", job)
                record = await sagemaker.jobs.finished("training", job["TrainingJobName"])
                assert record.failure_reason == f"ClientError: {CANNOT_PULL}"
            await sagemaker.close()

    asyncio.run(main())


async def _nothing(bucket: str, key: str) -> bytes:
    raise ClientError({}, f"{bucket}/{key}")


def test_a_root_folder_that_cannot_be_mounted_is_said_at_the_start(
    world: World, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smssh_plugin.local.sandbox import container

    monkeypatch.setattr(
        container, "_failure", lambda document: "mount overlay (EINVAL)" if document["root"] else None
    )

    async def main() -> None:
        async with world.runner(images={"one": roots / "one"}):
            pass

    with pytest.raises(SmsshError, match=r"no job can have the root folder .*one: mount overlay \(EINVAL\)"):
        asyncio.run(main())


def test_the_folders_that_jobs_have_are_as_they_were(roots: Path) -> None:
    """After all of the above, whatever order they ran in."""
    for name in ("one", "two", "py"):
        assert (roots / name / "etc" / "image").read_text() == f"{name}\n"
        assert not (roots / name / "opt").exists()
