"""Jobs in the local mode of SageMaker SDK v2 or v3, with and without SSH: what would run, written down as JSON.

A program of its own, `python local_mode.py OUT FOLDER`, like `v2.py`. Nothing runs in Docker: what local mode gives to
its container is kept, and the job is described as one that has run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from common import BUCKET, IMAGE, REGION, ROLE

from smssh_plugin import enable, with_ssh
from smssh_plugin.submit import warnings as warnings_of
from smssh_plugin.submit.options import SmsshWarning

try:
    from sagemaker.local import local_session as local
    from sagemaker.processing import ScriptProcessor
    from sagemaker.transformer import Transformer
    from sagemaker.workflow.pipeline import Pipeline
    from sagemaker.workflow.pipeline_context import LocalPipelineSession, PipelineSession
    from sagemaker.workflow.steps import ProcessingStep, TransformStep

    V3 = False
except ImportError:
    from sagemaker.core.local import local_session as local
    from sagemaker.core.processing import ScriptProcessor
    from sagemaker.core.transformer import Transformer
    from sagemaker.core.workflow import pipeline_context
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops import local as mlops
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.steps import ProcessingStep, TransformStep

    V3 = True

    class LocalPipelineSession(mlops.LocalPipelineSession, pipeline_context.LocalPipelineSession):
        """Each of its bases lacks what the other one has."""


if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(sys.argv[2])
ran: list[Any] = []
"""What the containers of a case would have been given, in order."""


def _kept(kind: str, status: str) -> tuple[Callable[..., None], Callable[..., dict[str, Any]]]:
    def create(self: Any, name: str = "", *_: Any, **request: Any) -> None:
        ran.append([kind, {key: value for key, value in request.items() if not key.endswith("JobName")}])

    def describe(self: Any, name: str = "", *_: Any, **__: Any) -> dict[str, Any]:
        return {status: "Completed", "ExitMessage": None}

    return create, describe


for kind in ("Processing", "Training", "Transform"):
    create, describe = _kept(kind, f"{kind}JobStatus")
    setattr(local.LocalSagemakerClient, f"create_{kind.lower()}_job", create)
    setattr(local.LocalSagemakerClient, f"describe_{kind.lower()}_job", describe)


def boto() -> boto3.Session:
    return boto3.Session(region_name=REGION)


def local_session() -> Any:
    return local.LocalSession(boto_session=boto(), default_bucket=BUCKET)


def local_pipeline_session() -> Any:
    return LocalPipelineSession(boto_session=boto(), default_bucket=BUCKET)


def pipeline_session() -> Any:
    return PipelineSession(boto_session=boto(), default_bucket=BUCKET)


def processor(session: Any) -> Any:
    return ScriptProcessor(
        role=ROLE,
        image_uri=IMAGE,
        command=["python3"],
        instance_count=1,
        instance_type="local" if isinstance(session, local.LocalSession) else "ml.m5.large",
        sagemaker_session=session,
        base_job_name="prepare",
    )


def script() -> str:
    (FOLDER / "prepare.py").write_text("print('prepared')\n")
    return str(FOLDER / "prepare.py")


def processing(session: Any, name: str = "Prepare") -> Any:
    return ProcessingStep(name=name, step_args=processor(session).run(code=script()))


def transform(session: Any) -> Any:
    transformer = Transformer(
        model_name="made-before",
        base_transform_job_name="score",
        instance_count=1,
        instance_type="local",
        output_path=f"s3://{BUCKET}/scores",
        sagemaker_session=session,
    )
    return TransformStep(name="Score", step_args=transformer.transform(data=f"s3://{BUCKET}/score"))


def execute(pipeline: Any, session: Any) -> None:
    """Run a pipeline in local mode, as `pipeline.create()` and `pipeline.start()` do in v2."""
    where = session if V3 else session.sagemaker_client
    where.create_pipeline(pipeline, "")
    execution = where.start_pipeline_execution(pipeline.name)
    assert execution.status == "Succeeded", execution.failure_reason


# -------------------------------------------------------------------------------- the ways in


def session_enabled(ssh: bool) -> None:
    session = local_session()
    if ssh:
        assert enable(session) is session
    processor(session).run(code=script(), wait=False, logs=False)


def client_enabled(ssh: bool) -> None:
    session = local_session()
    if ssh:
        enable(session.sagemaker_client, hold="failure")
    processor(session).run(code=script(), wait=False, logs=False)


def session_switched_off(ssh: bool) -> None:
    session = local_session()
    if ssh:
        enable(session, enabled=False)
    processor(session).run(code=script(), wait=False, logs=False)


def process_enabled(ssh: bool) -> None:
    if ssh:
        enable(enabled=True)
    processor(local_session()).run(code=script(), wait=False, logs=False)


def boto_session_enabled(ssh: bool) -> None:
    session = boto()
    if ssh:
        enable(session)
    processor(local.LocalSession(boto_session=session, default_bucket=BUCKET)).run(
        code=script(), wait=False, logs=False
    )


def pipeline_decorated(ssh: bool) -> None:
    session = local_pipeline_session()
    pipeline = Pipeline(
        name="pipe", steps=[processing(session), transform(session)], sagemaker_session=session
    )
    if ssh:
        with_ssh(pipeline, hold="failure")
    execute(pipeline, session)


def steps_decorated(ssh: bool) -> None:
    session = local_pipeline_session()
    steps = [processing(session), transform(session)]
    if ssh:
        with_ssh(steps)
    execute(Pipeline(name="pipe", steps=steps, sagemaker_session=session), session)


def step_of_another_session(ssh: bool) -> None:
    """The step was made for AWS, and the pipeline runs here."""
    step = processing(pipeline_session())
    if ssh:
        with_ssh(step)
    session = local_pipeline_session()
    execute(Pipeline(name="pipe", steps=[step], sagemaker_session=session), session)


def pipeline_for_both(ssh: bool) -> None:
    """The pipeline was decorated for AWS, and is tried here."""
    real = pipeline_session()
    pipeline = Pipeline(name="pipe", steps=[processing(real)], sagemaker_session=real)
    if ssh:
        with_ssh(pipeline)
    pipeline.sagemaker_session = session = local_pipeline_session()
    execute(pipeline, session)


def pipeline_given_to_a_local_session(ssh: bool) -> None:
    """The pipeline and its step are made for AWS, and given to local mode all the same."""
    real = pipeline_session()
    pipeline = Pipeline(name="pipe", steps=[processing(real)], sagemaker_session=real)
    if ssh:
        with_ssh(pipeline)
    execute(pipeline, local_pipeline_session())


def definition_looked_at(ssh: bool) -> None:
    session = local_pipeline_session()
    pipeline = Pipeline(name="pipe", steps=[processing(session)], sagemaker_session=session)
    if ssh:
        with_ssh(pipeline, steps="Prepare")
    ran.append(["definition", json.loads(pipeline.definition())])


def trainer_in_a_container(ssh: bool) -> None:
    """v3's ModelTrainer has a local mode of its own."""
    if not V3:
        return
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, SourceCode
    from sagemaker.train import model_trainer

    def train(container: Any, *_: Any) -> str:
        ran.append(["Training", {name: repr(value) for name, value in vars(container).items()}])
        return str(FOLDER)

    model_trainer._LocalContainer.train = train
    script()
    session = Session(boto_session=boto(), default_bucket=BUCKET)
    if ssh:
        enable(session)
    model_trainer.ModelTrainer(
        training_mode=model_trainer.Mode.LOCAL_CONTAINER,
        training_image=IMAGE,
        role=ROLE,
        sagemaker_session=session,
        base_job_name="train",
        local_container_root=str(FOLDER),
        compute=Compute(instance_type="local_cpu", instance_count=1),
        source_code=SourceCode(source_dir=str(FOLDER), entry_script="prepare.py"),
    ).train()


CASES = (
    session_enabled,
    client_enabled,
    session_switched_off,
    boto_session_enabled,
    pipeline_decorated,
    steps_decorated,
    step_of_another_session,
    pipeline_for_both,
    pipeline_given_to_a_local_session,
    definition_looked_at,
    trainer_in_a_container,
    process_enabled,  # the last: nothing takes it back
)


def of_a_case(case: Callable[[bool], None], *, ssh: bool) -> tuple[list[Any], list[str]]:
    """What its containers are given, and what is warned of."""
    ran.clear()
    warnings_of._said.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        case(ssh)
    text = json.dumps(ran, default=repr)
    # Names of jobs and of folders have the time in them, and addresses of objects.
    text = re.sub(
        r"-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-\d{3}|0x[0-9a-f]+|-\d{14}\b|tmp\w{8}|(?<=/files/)\w{8}\b", "", text
    )
    return json.loads(text), [str(each.message) for each in caught if each.category is SmsshWarning]


os.makedirs(FOLDER, exist_ok=True)
boto().client("s3").create_bucket(Bucket=BUCKET)
found = {
    case.__name__: {"before": of_a_case(case, ssh=False), "after": of_a_case(case, ssh=True)}
    for case in CASES
}
Path(sys.argv[1]).write_text(json.dumps({"v3": V3, "cases": found}))
