"""Processing jobs.

Facts: AWS' developer guide, "How Amazon SageMaker Processing Runs Your Processing Container Image" and "...
Configures Input and Output ...".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..sandbox.container import SandboxStartError
from .inputs import S3Object, download, find, shard
from .kinds import REASON_LENGTH, SEE_LOGS, ClientFault, Outcome, cannot_start
from .outputs import read_text, upload_folders

if TYPE_CHECKING:
    from .job_run import Container, JobRun

__all__ = ["run_processing"]

_DEFAULT_RUNTIME = 24 * 3600
"""Seconds; the service's own default of MaxRuntimeInSeconds."""


async def run_processing(run: JobRun) -> Outcome:
    """Run a processing job to its end.

    Raises:
        ClientFault: the request, or what it names in S3, cannot be served.
        JobStopped: stopped before its containers ran.
    """
    request = run.job.request
    run.add_hosts(request["ProcessingResources"]["ClusterConfig"].get("InstanceCount", 1))
    run.status("Downloading", "Downloading input data")
    await run.blocking(_prepare, run)
    run.check_stopped()

    run.status("Processing", "Processing in progress.")
    application = request["AppSpecification"]
    argv = [*(application.get("ContainerEntrypoint") or []), *(application.get("ContainerArguments") or [])]
    if not argv:
        raise ClientFault(
            "the request has no AppSpecification.ContainerEntrypoint, and the local emulator's image has no"
            " ENTRYPOINT of its own"
        )
    environment = {
        "PROCESSING_JOB_NAME": run.job.name,
        "PROCESSING_JOB_ARN": run.job.arn,
        **(request.get("Environment") or {}),
    }
    try:
        await run.start(argv, [environment] * len(run.containers))
    except SandboxStartError as error:
        if error.stage != "exec":
            raise
        return Outcome("Failed", "Failed", failure_reason=cannot_start("", error.message), exit_code=127)
    limit = (request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", _DEFAULT_RUNTIME)
    code = await run.finish(limit)

    run.status("Uploading", "Uploading output data")
    stopped = run.stopped_as
    await run.blocking(_upload, run, code == 0 and stopped is None)
    message = await run.blocking(_message, run.containers) or None
    times: dict[str, Any] = {"started": run.started, "ended": run.ended}
    if stopped is not None:
        return Outcome("Stopped", stopped, exit_code=code, exit_message=message, **times)
    if code != 0:
        reason = "AlgorithmError: " + SEE_LOGS
        return Outcome(
            "Failed", "Failed", failure_reason=reason, exit_code=code, exit_message=message, **times
        )
    return Outcome("Completed", "Completed", exit_code=0, exit_message=message, **times)


def _local(container: Container, path: str, what: str) -> Any:
    """Where a LocalPath is on this machine.

    Raises:
        ClientFault: it is not below /opt/ml.
    """
    try:
        return container.inside(path)
    except ValueError:
        raise ClientFault(f"{what}: LocalPath {path} must be below /opt/ml/processing") from None


def _prepare(run: JobRun) -> None:
    """Write the configuration files of every host, and fill its inputs.

    Raises:
        ClientFault: S3 says no, or an input is of a sort that is not served.
        JobStopped: the job was asked to stop.
    """
    request = run.job.request
    inputs: list[tuple[dict[str, Any], list[S3Object]]] = []
    for item in request.get("ProcessingInputs") or []:
        if item.get("AppManaged"):
            continue
        source = item.get("S3Input")
        name = "input {}".format(item["InputName"])
        if source is None:
            raise ClientFault(f"{name}: DatasetDefinition is not served here; use S3Input")
        if source.get("S3InputMode", "File") != "File" or source.get("S3CompressionType", "None") != "None":
            raise ClientFault(f"{name}: S3InputMode Pipe is not served here; use File")
        inputs.append((source, find(run.s3, source, role=request.get("RoleArn", ""))))
    config = {
        **{key: value for key, value in request.items() if key != "Tags"},
        "ProcessingJobArn": run.job.arn,
        "ProcessingJobName": run.job.name,
    }
    for index, container in enumerate(run.containers):
        for path in ("config", "processing", "output"):
            (container.ml / path).mkdir()
        cluster = run.cluster(container.host, request["ProcessingResources"]["ClusterConfig"])
        for file, content in (("processingjobconfig", config), ("resourceconfig", cluster)):
            (container.ml / "config" / (file + ".json")).write_text(json.dumps(content), encoding="utf-8")
        for source, objects in inputs:
            folder = _local(container, source["LocalPath"], "input {}".format(source["S3Uri"]))
            distribution = source.get("S3DataDistributionType", "FullyReplicated")
            mine = shard(objects, distribution, index, len(run.containers))
            download(run.s3, mine, folder, run.stopping)
        for output in _outputs(request):
            folder = _local(container, output["LocalPath"], "output {}".format(output["S3Uri"]))
            folder.mkdir(parents=True, exist_ok=True)


def _outputs(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs that the service uploads."""
    outputs = (request.get("ProcessingOutputConfig") or {}).get("Outputs") or []
    return [item["S3Output"] for item in outputs if item.get("S3Output") and not item.get("AppManaged")]


def _upload(run: JobRun, completed: bool) -> None:
    """Upload the outputs; of a job that did not complete, those that would have been uploaded continuously.

    Raises:
        ClientFault: S3 says no.
    """
    for output in _outputs(run.job.request):
        if completed or output.get("S3UploadMode") == "Continuous":
            folders = [container.tree(output["LocalPath"]) for container in run.containers]
            upload_folders(run.s3, folders, output["S3Uri"])


def _message(containers: list[Container]) -> str:
    """What the first host with something to say wrote to /opt/ml/output/message."""
    texts = (read_text(container.ml / "output" / "message", REASON_LENGTH) for container in containers)
    return next((text for text in texts if text), "")
