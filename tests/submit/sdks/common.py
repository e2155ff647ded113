"""Steps and jobs of a real SageMaker SDK, each with and without SSH, written down as JSON.

A program of its own (`python v2.py OUT FOLDER`, `python v3.py OUT FOLDER`), because v2 and v3 of the SDK can't share an
environment: `test_sdks` runs it with the Python of each, in the surroundings that `environments.py` makes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import sys
import tarfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore
import jsonschema
from botocore.awsrequest import AWSResponse
from botocore.loaders import create_loader

from smssh_plugin import SmsshError, enable, with_ssh
from smssh_plugin.submit.request.add_ssh import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

REGION = "us-east-1"
BUCKET = "sagemaker-us-east-1-123456789012"
ROLE = "arn:aws:iam::123456789012:role/job"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"

# The SDKs check their configuration file at every look into it: nine tenths of the time that all this takes.
jsonschema.validate = lambda *_, **__: None

LOADER = create_loader()
"""Of botocore's service models: each session would read SageMaker's anew, and the SDKs make many."""

sent: list[Any] = []
"""What was sent to SageMaker, in order."""


def watch(session: Any) -> None:
    """Keep what the clients of a session send, and answer what moto does not know."""

    def keep(params: Any, model: Any, **_: Any) -> None:
        sent.append({"Operation": model.name, "Request": json.loads(params["body"])})

    def allow(**_: Any) -> Any:
        """May the role do what it has to? SDK v3 asks."""
        return AWSResponse("", 200, {}, None), {"EvaluationResults": [], "IsTruncated": False}

    session.register_component("data_loader", LOADER)
    for kind in ("TrainingJob", "ProcessingJob", "TransformJob", "Model", "HyperParameterTuningJob"):
        session.register(f"before-call.sagemaker.Create{kind}", keep)
    session.register("before-call.iam.SimulatePrincipalPolicy", allow)


botocore.register_initializer(watch)


class World:
    """What the cases are made of: a boto3 session, a pipeline session of the SDK, files of a user's."""

    def __init__(self, folder: Path, pipeline_session: Callable[[boto3.Session], Any]) -> None:
        self.boto_session = boto3.Session(region_name=REGION)
        self.session = pipeline_session(self.boto_session)
        self.code = folder / "code"
        self.code.mkdir(parents=True)
        for name in ("prepare.py", "train.py", "inference.py"):
            (self.code / name).write_text(f"print({name!r})\n")
        (folder / "notebook.ipynb").write_text("{}\n")
        self.notebook = str(folder / "notebook.ipynb")
        self.model = folder / "model"
        self._names = itertools.count()

    def s3(self, name: str) -> str:
        """An address in the bucket of the tests."""
        return f"s3://{BUCKET}/{name}"

    def new_name(self, prefix: str) -> str:
        """A name that was not given before, here or on another machine."""
        return f"{prefix}-{os.getpid()}-{next(self._names)}"

    def prepare_account(self) -> None:
        """Make the bucket and the role that the cases name."""
        self.boto_session.client("s3").create_bucket(Bucket=BUCKET)
        trusted = {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        iam = self.boto_session.client("iam")
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            policy = json.dumps({"Statement": [trusted]})
            iam.create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument=policy)


class Table:
    """The cases, by name.

    Args:
        pipeline: the SDK's class of pipelines.
        pipeline_session: makes a pipeline session of the SDK's from a boto3 session.
    """

    def __init__(self, pipeline: Any, pipeline_session: Callable[[boto3.Session], Any]) -> None:
        self._pipeline = pipeline
        self._pipeline_session = pipeline_session
        self._cases: dict[str, Callable[[World], Any]] = {}

    def steps(self, name: str, only: Any = None, **options: Any) -> Callable[[Any], Any]:
        """Take a function that makes what a pipeline has: a step or several, and parameters.

        Args:
            name: the name of the case.
            only: picks those of the steps that are decorated; all, if it is left out.
            options: what is asked for.
        """

        def take(make: Callable[[World], Any]) -> Any:
            self._cases[name] = lambda world: self._compiled(world, name, make, only, options)
            return make

        return take

    def pipeline(self, name: str, **asked: Any) -> Callable[[Any], Any]:
        """The same for a pipeline that is decorated as a whole, and in no other way."""

        def take(make: Callable[[World], Any]) -> Any:
            self._cases[name] = lambda world: self._compiled_as_a_whole(world, name, make, asked)
            return make

        return take

    def job(self, name: str) -> Callable[[Any], Any]:
        """Take a function that submits a job at once, with the world's boto3 session."""

        def take(make: Callable[[World], Any]) -> Any:
            self._cases[name] = lambda world: _submitted(world, make)
            return make

        return take

    def error(self, name: str) -> Callable[[Any], Any]:
        """Take a function that goes wrong."""

        def take(make: Callable[[World], Any]) -> Any:
            self._cases[name] = lambda world: _failed(world, make)
            return make

        return take

    def main(self) -> None:
        """Run the cases, or those that are named, and write what they gave to a file: `OUT FOLDER [CASE ...]`."""
        logging.disable(logging.ERROR)
        out, folder, wanted = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
        world = World(folder, self._pipeline_session)
        world.prepare_account()
        cases = {name: run for name, run in self._cases.items() if not wanted or name in wanted}
        out.write_text(json.dumps({name: run(world) for name, run in cases.items()}))

    def _made(self, world: World, name: str, make: Any) -> tuple[Any, list[Any]]:
        """A pipeline, and its steps."""
        made = make(world)
        made = list(made) if isinstance(made, (list, tuple)) else [made]
        steps = [each for each in made if not hasattr(each, "parameter_type")]
        parameters = [each for each in made if hasattr(each, "parameter_type")]
        pipeline = self._pipeline(
            name=name, steps=steps, parameters=parameters, sagemaker_session=world.session
        )
        return pipeline, steps

    def _compiled(self, world: World, name: str, make: Any, only: Any, options: Any) -> dict[str, Any]:
        """A definition before and after, and once more where the pipeline is decorated instead of its steps."""
        pipeline, steps = self._made(world, name, make)
        found = {"before": json.loads(pipeline.definition()), "options": options}
        folders = _folders(world)
        with_ssh(steps if only is None else only(steps), **options)
        found["after"] = json.loads(pipeline.definition())
        found["touched"] = _folders(world) != folders
        os.environ["SMSSH_ENABLE"] = "0"
        found["off"] = json.loads(pipeline.definition())
        del os.environ["SMSSH_ENABLE"]
        if only is None:
            whole, _ = self._made(world, name, make)
            # Named by their kinds, as they were above.
            kinds = {KINDS[kind] for kind in _types(found["before"]["Steps"]) if kind in KINDS}
            found["whole"] = json.loads(with_ssh(whole, steps=sorted(kinds), **options).definition())
        found["repacked"] = _repacked(world, found["after"])
        return found

    def _compiled_as_a_whole(self, world: World, name: str, make: Any, asked: Any) -> dict[str, Any]:
        pipeline, _ = self._made(world, name, make)
        found = {"before": json.loads(pipeline.definition())}
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            found["after"] = json.loads(with_ssh(pipeline, **asked).definition())
        found["said"] = [str(each.message) for each in record if each.category.__name__ == "SmsshWarning"]
        return found


def _types(steps: list[Any]) -> list[str]:
    """The types of steps, nested ones too."""
    inner = [
        each["Arguments"].get(name, []) for each in steps for name in ("IfSteps", "ElseSteps", "ForEachBody")
    ]
    return [*(each["Type"] for each in steps), *(one for found in inner for one in _types(found))]


def _folders(world: World) -> dict[str, int]:
    """When something was made or removed last in each folder of the user's."""
    return {str(each): each.stat().st_mtime_ns for each in world.code.parent.rglob("*") if each.is_dir()}


def _repacked(world: World, definition: Any) -> list[str]:
    """What the step that repacks a model copies into it, by name; nothing where there is no such step."""
    s3 = world.boto_session.client("s3")
    for arguments in (step["Arguments"] for step in definition["Steps"]):
        if "inference_script" not in arguments.get("HyperParameters", ()):
            continue
        channels = {each["ChannelName"]: each["DataSource"] for each in arguments["InputDataConfig"]}
        if "code" in channels:  # SDK v3
            prefix = channels["code"]["S3DataSource"]["S3Uri"].partition(f"{BUCKET}/")[2]
            listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
            return sorted(each["Key"][len(prefix) :].lstrip("/") for each in listed)
        key = json.loads(arguments["HyperParameters"]["sagemaker_submit_directory"]).partition(f"{BUCKET}/")[
            2
        ]
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            return sorted(each.name for each in archive if each.isfile())
    return []


def _submitted(world: World, make: Any) -> dict[str, Any]:
    """What is sent to SageMaker, before and after; by the same boto3 session, as an SDK may keep its clients."""
    found = {}
    world.boto_session = boto3.Session(region_name=REGION)
    for moment in ("before", "after"):
        if moment == "after":
            enable(world.boto_session)
        sent.clear()
        make(world)
        found[moment] = list(sent)
    # Up to 3.2x, all sessions share the client that was made first.
    enable(world.boto_session, enabled=False)
    return found


def _failed(world: World, make: Any) -> dict[str, Any]:
    """The error, whatever the SDK wraps it in."""
    try:
        make(world)
    except Exception as error:  # noqa: BLE001 - the SDKs have their own
        found: BaseException | None = error
        while found is not None and not isinstance(found, SmsshError):
            found = found.__cause__
        return {"error": str(found)}
    return {"error": None}


warnings.simplefilter("ignore")
