"""Training jobs.

Facts: AWS' developer guide, "How Amazon SageMaker AI Provides Training Information" and "... Runs Your
Training Image"; the toolkit's reader of the same files, sagemaker_training.environment.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..sandbox.container import SandboxStartError
from .inputs import S3Object, download, find, shard
from .kinds import REASON_LENGTH, ClientFault, Outcome, algorithm_error, cannot_start
from .outputs import join, read_text, upload_archive, upload_folders

if TYPE_CHECKING:
    from .job_run import Container, JobRun

__all__ = ["run_training"]

_CHECKPOINTS = "/opt/ml/checkpoints"
_DEFAULT_RUNTIME = 24 * 3600
"""Seconds; the service's own default of MaxRuntimeInSeconds."""


async def run_training(run: JobRun) -> Outcome:
    """Run a training job to its end.

    Raises:
        ClientFault: the request, or what it names in S3, cannot be served.
        JobStopped: stopped before its containers ran.
    """
    request = run.job.request
    config = request["ResourceConfig"]
    groups = config.get("InstanceGroups") or [config]
    run.add_hosts(sum(group.get("InstanceCount", 1) for group in groups))

    run.status("Downloading", "Downloading input data")
    channels = request.get("InputDataConfig") or []
    for channel in channels:
        _check(channel, request["AlgorithmSpecification"])
    await run.blocking(_prepare, run)
    run.check_stopped()

    run.status("Training", "Training image download completed. Training in progress.")
    argv = command(request["AlgorithmSpecification"])
    environment = {
        "TRAINING_JOB_NAME": run.job.name,
        "TRAINING_JOB_ARN": run.job.arn,
        **(request.get("Environment") or {}),
    }
    try:
        await run.start(argv, [environment] * len(run.containers))
    except SandboxStartError as error:
        if error.stage != "exec":
            raise
        return Outcome("Failed", "Failed", failure_reason=cannot_start("train", error.message), exit_code=127)
    limit = (request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", _DEFAULT_RUNTIME)
    code = await run.finish(limit)

    run.status("Uploading", "Uploading generated training model")
    reason = None if code == 0 else algorithm_error(await run.blocking(_failure, run.containers), code)
    stopped = run.stopped_as
    artifacts = await run.blocking(_upload, run, code == 0 or stopped is not None)
    times: dict[str, Any] = {"started": run.started, "ended": run.ended}
    if stopped is not None:
        return Outcome("Stopped", stopped, exit_code=code, model_artifacts=artifacts, **times)
    if reason is not None:
        return Outcome("Failed", "Failed", failure_reason=reason, exit_code=code, **times)
    return Outcome("Completed", "Completed", exit_code=0, model_artifacts=artifacts, **times)


def command(specification: dict[str, Any]) -> list[str]:
    """The container's command: the request's, else `train` from the PATH: the image has no ENTRYPOINT."""
    entry_point = specification.get("ContainerEntrypoint") or []
    arguments = specification.get("ContainerArguments") or []
    return [*entry_point, *arguments] or ["train"]


def _check(channel: dict[str, Any], specification: dict[str, Any]) -> None:
    """Refuse what the local emulator does not serve.

    Raises:
        ClientFault: naming the channel.
    """
    name = channel["ChannelName"]
    mode = channel.get("InputMode") or specification.get("TrainingInputMode") or "File"
    if mode == "Pipe":
        raise ClientFault(f"channel {name}: InputMode Pipe is not served here; use File or FastFile")
    if "S3DataSource" not in channel["DataSource"]:
        kinds = ", ".join(channel["DataSource"])
        raise ClientFault(f"channel {name}: {kinds} is not served here; use S3DataSource")
    if channel.get("CompressionType", "None") != "None":
        raise ClientFault(f"channel {name}: CompressionType is for InputMode Pipe only")


def _prepare(run: JobRun) -> None:
    """Write the configuration files of every host, and fill its channels.

    Raises:
        ClientFault: S3 says no.
        JobStopped: the job was asked to stop.
    """
    request = run.job.request
    channels = request.get("InputDataConfig") or []
    checkpoints = request.get("CheckpointConfig")
    inputs: dict[str, list[S3Object]] = {}
    for channel in channels:
        source = channel["DataSource"]["S3DataSource"]
        inputs[channel["ChannelName"]] = find(run.s3, source, role=request.get("RoleArn", ""))
    for index, container in enumerate(run.containers):
        for path in ("input/config", "input/data", "model", "output/data"):
            (container.ml / path).mkdir(parents=True)
        config = container.ml / "input" / "config"
        for name, content in (
            ("hyperparameters", request.get("HyperParameters") or {}),
            ("inputdataconfig", {item["ChannelName"]: _describe(item, request) for item in channels}),
            ("resourceconfig", run.cluster(container.host, request["ResourceConfig"])),
        ):
            (config / (name + ".json")).write_text(json.dumps(content), encoding="utf-8")
        for channel in channels:
            name = channel["ChannelName"]
            distribution = channel["DataSource"]["S3DataSource"].get(
                "S3DataDistributionType", "FullyReplicated"
            )
            mine = shard(inputs[name], distribution, index, len(run.containers))
            download(run.s3, mine, container.ml / "input" / "data" / name, run.stopping)
        if checkpoints:
            _restore_checkpoints(run, container, checkpoints)


def _describe(channel: dict[str, Any], request: dict[str, Any]) -> dict[str, str]:
    """A channel as inputdataconfig.json has it."""
    mode = channel.get("InputMode") or request["AlgorithmSpecification"].get("TrainingInputMode") or "File"
    description = {
        "TrainingInputMode": mode,
        "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
            "S3DataDistributionType", "FullyReplicated"
        ),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }
    if channel.get("ContentType"):
        description["ContentType"] = channel["ContentType"]
    return description


def _restore_checkpoints(run: JobRun, container: Container, config: dict[str, Any]) -> None:
    """Bring the checkpoints of an earlier run, if there are any.

    Raises:
        ClientFault: the local path is not below /opt/ml.
    """
    try:
        folder = container.inside(config.get("LocalPath", _CHECKPOINTS))
    except ValueError:
        raise ClientFault("CheckpointConfig.LocalPath must be below /opt/ml here") from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = find(run.s3, {"S3Uri": config["S3Uri"].rstrip("/") + "/"})
    except ClientFault:
        return
    download(run.s3, found, folder, run.stopping)


def _failure(containers: list[Container]) -> str:
    """What the first host that failed wrote to /opt/ml/output/failure."""
    for container in containers:
        if container.exit_code:
            text = read_text(container.ml / "output" / "failure", REASON_LENGTH)
            if text:
                return text
    return ""


def _upload(run: JobRun, model: bool) -> str | None:
    """Upload the model (of a job that did not fail), the other output and the checkpoints.

    Returns:
        The S3 URI of the model.

    Raises:
        ClientFault: S3 says no.
    """
    request = run.job.request
    s3 = run.s3
    output = request["OutputDataConfig"]
    home = join(join(output["S3OutputPath"], run.job.name), "output")
    plain = output.get("CompressionType", "GZIP") == "NONE"
    scratch = run.folder / "upload.tar.gz"

    def folders(name: str) -> list[Any]:
        return [container.tree(f"/opt/ml/{name}") for container in run.containers]

    checkpoints = request.get("CheckpointConfig")
    if checkpoints:
        path = checkpoints.get("LocalPath", _CHECKPOINTS)
        upload_folders(s3, [container.tree(path) for container in run.containers], checkpoints["S3Uri"])
    if plain:
        upload_folders(s3, folders("output/data"), join(home, "data"))
    else:
        upload_archive(s3, folders("output/data"), join(home, "output.tar.gz"), scratch)
    if not model:
        return None
    if plain:
        upload_folders(s3, folders("model"), join(home, "model"))
        return join(home, "model/")
    upload_archive(s3, folders("model"), join(home, "model.tar.gz"), scratch)
    return join(home, "model.tar.gz")
