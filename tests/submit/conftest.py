"""Everything offline: moto's server on loopback, fake credentials, a home of its own, real SDK pipelines."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a dataclass has a field of it
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from smssh_plugin.submit import warnings
from smssh_plugin.submit.bundle import check, publish
from tests import needs

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKET = "tests-bucket"
REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/job"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7tHAuphTTyE5a9CYRfcOTPNUOEeZ0zJlOA+XjiM8Wo tests"


@pytest.fixture(scope="session")
def endpoint() -> Any:
    """The address of a moto server that lives as long as the session."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def offline(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables with which boto3 and the SDK reach nothing but moto."""
    config = tmp_path_factory.mktemp("sdk") / "config.yaml"
    config.write_text(
        "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"
    )
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # moto has no SimulatePrincipalPolicy: the SDK tries and goes on
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(config),
    }


def reach_only(variables: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    """Have these variables, and no others of AWS, SageMaker and smssh.

    Each test has them by `home`, and a fixture of the session while it makes a client or imports the SDK. If they were
    set for the session, the tests of all other files that this worker runs would have them.
    """
    for name in [name for name in os.environ if name.startswith(("AWS_", "SAGEMAKER_", "SMSSH_"))]:
        patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)
    patch.setattr(boto3, "DEFAULT_SESSION", None)  # the SDK makes one when it is imported


@pytest.fixture(autouse=True)
def home(
    offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home with a key pair in it (the private half is never read), so that the machine does not matter."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "id_ed25519").write_text("not a key\n")
    (folder / "id_ed25519.pub").write_text(KEY + "\n")
    reach_only({**offline, "SMSSH_HOME": str(folder)}, monkeypatch)
    return folder


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said once is said once in a process."""
    monkeypatch.setattr(warnings, "_said", {})


@pytest.fixture(scope="session")
def boto_session(offline: dict[str, str]) -> boto3.Session:
    with pytest.MonkeyPatch.context() as patch:
        reach_only(offline, patch)
        made = boto3.Session(region_name=REGION)
        made.get_credentials()  # and keeps them
    return made


@pytest.fixture(scope="session")
def s3(offline: dict[str, str], boto_session: boto3.Session) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        reach_only(offline, patch)
        return boto_session.client("s3")


@pytest.fixture(autouse=True)
def bucket(s3: Any) -> None:
    """Before each test: moto's state is one a process, and tests of other rooms begin with none."""
    if BUCKET not in [found["Name"] for found in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)
        # What this process has stored is gone as well.
        publish._published.clear()
        check._checked.clear()


@pytest.fixture(scope="session")
def sdk(
    offline: dict[str, str], boto_session: boto3.Session, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """SageMaker SDK v3; imported once, because that takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        reach_only(offline, patch)
        needs.module("sagemaker.mlops")
        from sagemaker.core.config import config
        from sagemaker.core.config.config_manager import SageMakerConfig

    code = tmp_path_factory.mktemp("code")
    (code / "prepare.py").write_text("print('prepared')\n")
    (code / "train.py").write_text("print('trained')\n")
    with pytest.MonkeyPatch.context() as patch:
        # The SDK checks its configuration file against a schema at every look into it, a third of a second
        # each.
        patch.setattr(SageMakerConfig, "validate_sagemaker_config", staticmethod(lambda _config=None: None))
        patch.setattr(config, "validate_sagemaker_config", lambda _config=None: None)
        yield SDK(boto_session, code)


@dataclass
class SDK:
    """What tests need of the SDK: steps as users make them, each time new ones."""

    boto_session: boto3.Session
    code: Path
    _session: Any = None

    def session(self) -> Any:
        """A session of the SDK; always the same one, because it takes half a second to make."""
        if self._session is None:
            self._session = self.new_session()
        return self._session

    def new_session(self, **more: Any) -> Any:
        from sagemaker.core.workflow.pipeline_context import PipelineSession

        return PipelineSession(boto_session=self.boto_session, default_bucket=BUCKET, **more)

    def pipeline(self, *steps: Any, session: Any = None, parameters: Any = (), name: str = "pipe") -> Any:
        from sagemaker.mlops.workflow.pipeline import Pipeline

        return Pipeline(
            name=name,
            steps=list(steps),
            parameters=list(parameters),
            sagemaker_session=session or self.session(),
        )

    def processor(self, session: Any, **more: Any) -> Any:
        from sagemaker.core.processing import ScriptProcessor

        return ScriptProcessor(
            role=ROLE,
            image_uri=IMAGE,
            command=["python3"],
            instance_count=1,
            instance_type="ml.m5.large",
            sagemaker_session=session,
            **more,
        )

    def processing(self, session: Any, name: str = "Prepare", **more: Any) -> Any:
        from sagemaker.mlops.workflow.steps import ProcessingStep

        processor = self.processor(session, **more)
        return ProcessingStep(name=name, step_args=processor.run(code=str(self.code / "prepare.py")))

    def bare_processing(self, session: Any, name: str = "Bare", **more: Any) -> Any:
        from sagemaker.core.processing import Processor
        from sagemaker.mlops.workflow.steps import ProcessingStep

        processor = Processor(
            role=ROLE,
            image_uri=IMAGE,
            instance_count=1,
            instance_type="ml.m5.large",
            sagemaker_session=session,
            **more,
        )
        return ProcessingStep(name=name, step_args=processor.run())

    def trainer(self, session: Any, **more: Any) -> Any:
        from sagemaker.core.training.configs import Compute
        from sagemaker.train.model_trainer import ModelTrainer

        return ModelTrainer(
            training_image=IMAGE,
            role=ROLE,
            sagemaker_session=session,
            base_job_name="train",
            compute=Compute(instance_type="ml.m5.large", instance_count=1),
            **more,
        )

    def training(self, session: Any, name: str = "Train", **more: Any) -> Any:
        from sagemaker.core.training.configs import InputData, SourceCode
        from sagemaker.mlops.workflow.steps import TrainingStep

        trainer = self.trainer(
            session,
            source_code=SourceCode(source_dir=str(self.code), entry_script="train.py"),
            **more,
        )
        data = [InputData(channel_name="train", data_source=f"s3://{BUCKET}/data")]
        return TrainingStep(name=name, step_args=trainer.train(data))

    def script_mode(self, session: Any, name: str = "Script", **more: Any) -> Any:
        """The sagemaker-training toolkit by its hyperparameters; the request has no entry point."""
        from sagemaker.mlops.workflow.steps import TrainingStep

        trainer = self.trainer(
            session,
            hyperparameters={
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": f"s3://{BUCKET}/code.tar.gz",
            },
            **more,
        )
        return TrainingStep(name=name, step_args=trainer.train())

    def model(self, session: Any, name: str = "Model", data: Any = f"s3://{BUCKET}/model.tar.gz") -> Any:
        from sagemaker.mlops.workflow.model_step import ModelStep
        from sagemaker.serve.model_builder import ModelBuilder

        builder = ModelBuilder(
            image_uri=IMAGE,
            role_arn=ROLE,
            sagemaker_session=session,
            s3_model_data_url=data,
            model_path=str(self.code.with_name("model")),  # the default may be another user's
            env_vars={"SAGEMAKER_PROGRAM": "inference.py"},
        )
        return ModelStep(name=name, step_args=builder.build())

    def transform(self, session: Any, model_name: Any, name: str = "Score") -> Any:
        from sagemaker.core.transformer import Transformer
        from sagemaker.mlops.workflow.steps import TransformStep

        transformer = Transformer(
            model_name=model_name,
            instance_count=1,
            instance_type="ml.m5.large",
            output_path=f"s3://{BUCKET}/scores",
            sagemaker_session=session,
        )
        return TransformStep(name=name, step_args=transformer.transform(data=f"s3://{BUCKET}/score"))


def steps_of(pipeline: Any) -> dict[str, Any]:
    """The compiled steps of a pipeline by name, nested ones too."""
    found: dict[str, Any] = {}

    def collect(steps: Any) -> None:
        for step in steps:
            found[step["Name"]] = step
            for name in ("IfSteps", "ElseSteps", "ForEachBody"):
                collect(step["Arguments"].get(name, ()))

    collect(json.loads(pipeline.definition())["Steps"])
    return found
