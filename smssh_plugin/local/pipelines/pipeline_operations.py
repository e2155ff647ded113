"""Pipelines and their executions, as the SageMaker API shows them."""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ..sagemaker.resources import PipelineRecord, Store, arn, page
from ..sagemaker.shapes import validation_error
from ..service_error import ServiceError
from .definition import parse
from .engine import Execution
from .expressions import ReadObject, StepError, shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..sagemaker.shapes import Shapes
    from .definition import Definition
    from .engine import Finished, Handle, Invoke
    from .step_run import StepRun

__all__ = ["Pipelines", "ReadObject"]

_RUNNING = ("Executing", "Stopping")
_RETRYABLE = ("Failed", "Stopped")
_ID = string.ascii_lowercase + string.digits


class Pipelines:
    """The pipeline operations.

    Args:
        store: where pipelines and tags are kept.
        shapes: of the service, to check definitions.
        handle: calls any other operation, as the pipeline service calls SageMaker.
        finished: waits for the end of a job.
        invoke: invokes a Lambda function.
        read_object: reads an S3 object.
    """

    def __init__(
        self,
        store: Store,
        shapes: Shapes,
        handle: Handle,
        finished: Finished,
        invoke: Invoke,
        read_object: ReadObject,
    ) -> None:
        self._store = store
        self._shapes = shapes
        self._handle = handle
        self._finished = finished
        self._invoke = invoke
        self._read_object = read_object
        self._executions: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tokens: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}

    def operations(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """The API operations, by name."""
        return {
            "CreatePipeline": self._once("CreatePipeline", self._create),
            "UpdatePipeline": self._update,
            "DescribePipeline": self._describe,
            "ListPipelines": self._list,
            "DeletePipeline": self._delete,
            "StartPipelineExecution": self._once("StartPipelineExecution", self._start),
            "StopPipelineExecution": self._stop,
            "RetryPipelineExecution": self._once("RetryPipelineExecution", self._retry),
            "DescribePipelineExecution": self._describe_execution,
            "UpdatePipelineExecution": self._update_execution,
            "SendPipelineExecutionStepSuccess": self._callback_success,
            "SendPipelineExecutionStepFailure": self._callback_failure,
            "ListPipelineExecutions": self._list_executions,
            "ListPipelineExecutionSteps": self._list_steps,
            "ListPipelineParametersForExecution": self._list_parameters,
            "DescribePipelineDefinitionForExecution": self._describe_definition,
        }

    def has_execution(self, resource: str) -> bool:
        """Whether there is an execution of that ARN."""
        return resource in self._executions

    def halt(self) -> None:
        """Stop every execution: no more steps start."""
        for execution in self._executions.values():
            if execution.status == "Executing":
                execution.stop()

    async def settled(self, seconds: float) -> None:
        """Wait until no execution runs, for at most `seconds`; then cut off what still does."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    def _once(
        self, operation: str, act: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        """Give a repeated ClientRequestToken the first answer: clients repeat what seems to be lost."""

        async def idempotent(request: dict[str, Any]) -> dict[str, Any]:
            token = request.get("ClientRequestToken")
            if token is None:
                return await act(request)
            asked = json.dumps(request, sort_keys=True)
            known = self._tokens.get((operation, token))
            if known is not None:
                if known[0] != asked:
                    raise validation_error("ClientRequestToken was used before, with other parameters.")
                return known[1]
            answer = await act(request)
            self._tokens[operation, token] = (asked, answer)
            return answer

        return idempotent

    def _find(self, name_or_arn: str) -> PipelineRecord:
        name = name_or_arn.rpartition("/")[2]
        record = self._store.pipelines.get(name)
        if record is None or name_or_arn not in (record.name, record.arn):
            missing = name_or_arn if name_or_arn.startswith("arn:") else arn(f"pipeline/{name}")
            raise ServiceError("ResourceNotFound", f"Pipeline '{missing}' does not exist.")
        return record

    async def _read_definition(self, request: Mapping[str, Any]) -> Definition | None:
        text, place = request.get("PipelineDefinition"), request.get("PipelineDefinitionS3Location")
        if text is not None and place is not None:
            raise validation_error(
                "Both Pipeline Definition and Pipeline Definition S3 Location shouldn't be present"
            )
        if request.get("PipelineVersionAliases"):
            raise validation_error("smssh local has no PipelineVersionAliases.")
        if place is not None:
            try:
                text = (await self._read_object(place["Bucket"], place["ObjectKey"])).decode()
            except (BotoCoreError, ClientError, UnicodeDecodeError) as error:
                uri = f"s3://{place['Bucket']}/{place['ObjectKey']}"
                raise validation_error(f"The pipeline definition {uri} can not be read: {error}") from None
        return None if text is None else parse(text, self._shapes)

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["PipelineName"]
        if name in self._store.pipelines:
            raise validation_error(
                "Pipeline names must be unique within an AWS account and region. "
                f"Pipeline with name ({name}) already exists."
            )
        definition = await self._read_definition(request)
        if definition is None:
            raise validation_error(
                "Either Pipeline Definition or Pipeline Definition S3 location should be provided"
            )
        record = PipelineRecord(
            name,
            arn(f"pipeline/{name}"),
            self._store.next_number(),
            request["RoleArn"],
            [definition],
            request.get("PipelineDisplayName"),
            request.get("PipelineDescription"),
            request.get("ParallelismConfiguration"),
        )
        self._store.pipelines[name] = record
        self._store.tag(record.arn, request.get("Tags", ()))
        return {"PipelineArn": record.arn}

    async def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["PipelineName"])
        definition = await self._read_definition(request)
        if definition is not None:
            record.versions.append(definition)
        record.role = request.get("RoleArn", record.role)
        record.display_name = request.get("PipelineDisplayName", record.display_name)
        record.description = request.get("PipelineDescription", record.description)
        record.parallelism = request.get("ParallelismConfiguration", record.parallelism)
        record.modified = time.time()
        return {"PipelineArn": record.arn, "PipelineVersionId": len(record.versions)}

    @staticmethod
    def _version(record: PipelineRecord, request: Mapping[str, Any]) -> int:
        version: int = request.get("PipelineVersionId") or len(record.versions)
        if not 1 <= version <= len(record.versions):
            raise ServiceError("ResourceNotFound", f"Pipeline '{record.arn}' has no version {version}.")
        if request.get("PipelineVersionAlias"):
            raise validation_error("smssh local has no PipelineVersionAlias.")
        return version

    async def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["PipelineName"])
        version = self._version(record, request)
        return {
            **self._summary(record),
            "PipelineDefinition": record.versions[version - 1].text,
            "PipelineStatus": "Active",
            "LastRunTime": record.last_run,
            "ParallelismConfiguration": record.parallelism,
        }

    @staticmethod
    def _summary(record: PipelineRecord) -> dict[str, Any]:
        return {
            "PipelineArn": record.arn,
            "PipelineName": record.name,
            "PipelineDisplayName": record.display_name or record.name,
            "PipelineDescription": record.description,
            "RoleArn": record.role,
            "CreationTime": record.created,
            "LastModifiedTime": record.modified,
            "LastExecutionTime": record.last_run,
        }

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        def wanted(record: PipelineRecord) -> bool:
            return (
                record.name.startswith(request.get("PipelineNamePrefix", ""))
                and record.created > request.get("CreatedAfter", 0)
                and record.created < request.get("CreatedBefore", float("inf"))
            )

        by_name = request.get("SortBy") == "Name"
        found, token = page(
            filter(wanted, self._store.pipelines.values()),
            request,
            (lambda record: record.name) if by_name else (lambda record: record.created),
        )
        return {"PipelineSummaries": [self._summary(record) for record in found], "NextToken": token}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["PipelineName"])
        executions = [execution for execution in self._executions.values() if execution.pipeline is record]
        if any(execution.status in _RUNNING for execution in executions):
            raise ServiceError(
                "ConflictException", f"Pipeline '{record.arn}' has running executions; stop them first."
            )
        for execution in executions:
            del self._executions[execution.arn]
        del self._store.pipelines[record.name]
        self._store.tags.pop(record.arn, None)
        return {"PipelineArn": record.arn}

    async def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["PipelineName"])
        if request.get("MlflowExperimentName"):
            raise validation_error("smssh local does not interpret MlflowExperimentName.")
        version = self._version(record, request)
        definition = record.versions[version - 1]
        selective = request.get("SelectiveExecutionConfig")
        given, source = request.get("PipelineParameters", ()), None
        if selective:
            source = self._source(record, definition, selective)
            if source is not None and not given:
                # The parameters of the run before, where none are given: so the developer guide.
                given = [{"Name": name, "Value": shown(value)} for name, value in source.parameters.items()]
        identity = "".join(secrets.choice(_ID) for _ in range(12))
        execution = Execution(
            identity,
            f"{record.arn}/execution/{identity}",
            self._store.next_number(),
            record,
            version,
            definition,
            _parameters(definition, given),
            request.get("PipelineExecutionDisplayName") or f"execution-{int(time.time() * 1000)}",
            request.get("PipelineExecutionDescription"),
            request.get("ParallelismConfiguration") or record.parallelism,
            self._handle,
            self._finished,
            self._invoke,
            self._read_object,
        )
        if selective:
            execution.select([step["StepName"] for step in selective["SelectedSteps"]], source)
        self._executions[execution.arn] = execution
        record.last_run = execution.created
        self._launch(execution)
        return {"PipelineExecutionArn": execution.arn}

    def _source(
        self, record: PipelineRecord, definition: Definition, selective: Mapping[str, Any]
    ) -> Execution | None:
        """The execution whose steps a selective one takes over; the latest one that ended, where none is named.

        Raises:
            ServiceError: an unknown step, or an execution that is not there or still runs.
        """
        for step in selective["SelectedSteps"]:
            if step["StepName"] not in definition.steps:
                raise validation_error(f"Step '{step['StepName']}' is not a step of pipeline '{record.arn}'.")
        named = selective.get("SourcePipelineExecutionArn")
        if named is not None:
            source = self._execution({"PipelineExecutionArn": named})
            if source.pipeline is not record:
                raise validation_error(f"'{named}' is not an execution of pipeline '{record.arn}'.")
            if source.status in _RUNNING:
                raise validation_error(f"'{named}' can not be a source: it is in status {source.status}.")
            return source
        ended = [
            execution
            for execution in self._executions.values()
            if execution.pipeline is record and execution.status not in _RUNNING
        ]
        return max(ended, key=lambda execution: execution.number, default=None)

    async def _callback_success(self, request: dict[str, Any]) -> dict[str, Any]:
        outputs = {entry["Name"]: entry["Value"] for entry in request.get("OutputParameters") or ()}
        return self._call_back(request["CallbackToken"], outputs, None)

    async def _callback_failure(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._call_back(request["CallbackToken"], {}, request.get("FailureReason") or "")

    def _call_back(self, token: str, outputs: dict[str, str], failure: str | None) -> dict[str, Any]:
        for execution in self._executions.values():
            if execution.call_back(token, outputs, failure):
                return {"PipelineExecutionArn": execution.arn}
        raise ServiceError("ResourceNotFound", f"No step waits for the callback token '{token}'.")

    def _launch(self, execution: Execution) -> None:
        task = asyncio.get_running_loop().create_task(execution.run(), name=f"execution {execution.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _execution(self, request: Mapping[str, Any]) -> Execution:
        resource = request.get("PipelineExecutionArn")
        if resource is None:
            raise validation_error("PipelineExecutionArn is required.")
        execution = self._executions.get(resource)
        if execution is None:
            raise ServiceError("ResourceNotFound", f"Pipeline execution '{resource}' does not exist.")
        return execution

    async def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        execution = self._execution(request)
        if execution.status == "Executing":
            execution.stop()
        elif execution.status != "Stopping":
            raise ServiceError(
                "ConflictException",
                f"'{execution.arn}' can not be stopped: it is in status {execution.status}.",
            )
        return {"PipelineExecutionArn": execution.arn}

    async def _retry(self, request: dict[str, Any]) -> dict[str, Any]:
        execution = self._execution(request)
        if execution.status not in _RETRYABLE:
            raise ServiceError(
                "ConflictException",
                f"'{execution.arn}' can not be retried: it is in status {execution.status}.",
            )
        execution.parallelism = request.get("ParallelismConfiguration") or execution.parallelism
        execution.prepare_retry()
        self._launch(execution)
        return {"PipelineExecutionArn": execution.arn}

    async def _describe_execution(self, request: dict[str, Any]) -> dict[str, Any]:
        execution = self._execution(request)
        try:
            experiment = await execution.values.of(execution.definition.experiment)
        except StepError:
            experiment = None
        return {
            "PipelineArn": execution.pipeline.arn,
            "PipelineExecutionArn": execution.arn,
            "PipelineExecutionDisplayName": execution.display_name,
            "PipelineExecutionDescription": execution.description,
            "PipelineExecutionStatus": execution.status,
            "PipelineExperimentConfig": experiment,
            "FailureReason": execution.reason,
            "CreationTime": execution.created,
            "LastModifiedTime": execution.modified,
            "ParallelismConfiguration": execution.parallelism,
            "PipelineVersionId": execution.version,
            "SelectiveExecutionConfig": execution.selective,
        }

    async def _update_execution(self, request: dict[str, Any]) -> dict[str, Any]:
        execution = self._execution(request)
        execution.display_name = request.get("PipelineExecutionDisplayName", execution.display_name)
        execution.description = request.get("PipelineExecutionDescription", execution.description)
        if request.get("ParallelismConfiguration") is not None:
            execution.limit(request["ParallelismConfiguration"])
        return {"PipelineExecutionArn": execution.arn}

    async def _list_executions(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["PipelineName"])

        def wanted(execution: Execution) -> bool:
            return (
                execution.pipeline is record
                and execution.created > request.get("CreatedAfter", 0)
                and execution.created < request.get("CreatedBefore", float("inf"))
            )

        by_arn = request.get("SortBy") == "PipelineExecutionArn"
        found, token = page(
            filter(wanted, self._executions.values()),
            request,
            (lambda execution: execution.arn) if by_arn else (lambda execution: execution.created),
        )
        summaries = [
            {
                "PipelineExecutionArn": execution.arn,
                "StartTime": execution.created,
                "PipelineExecutionStatus": execution.status,
                "PipelineExecutionDescription": execution.description,
                "PipelineExecutionDisplayName": execution.display_name,
                "PipelineExecutionFailureReason": execution.reason,
            }
            for execution in found
        ]
        return {"PipelineExecutionSummaries": summaries, "NextToken": token}

    async def _list_steps(self, request: dict[str, Any]) -> dict[str, Any]:
        def started(run: StepRun) -> float:
            return run.started

        found, token = page(self._execution(request).runs.values(), request, started)
        return {"PipelineExecutionSteps": [run.summary() for run in found], "NextToken": token}

    async def _list_parameters(self, request: dict[str, Any]) -> dict[str, Any]:
        execution = self._execution(request)
        size = request.get("MaxResults") or 100
        names = sorted(execution.parameters)
        if request.get("NextToken"):
            names = [name for name in names if name > request["NextToken"]]
        parameters = [{"Name": name, "Value": shown(execution.parameters[name])} for name in names[:size]]
        return {"PipelineParameters": parameters, "NextToken": names[size - 1] if len(names) > size else None}

    async def _describe_definition(self, request: dict[str, Any]) -> dict[str, Any]:
        execution = self._execution(request)
        return {"PipelineDefinition": execution.definition.text, "CreationTime": execution.created}


def _parameters(definition: Definition, entries: Any) -> dict[str, Any]:
    """The parameters of one execution: what was given, else the default."""
    given = {entry["Name"]: entry["Value"] for entry in entries}
    for name in given:
        if name not in definition.parameters:
            raise validation_error(f"Unknown pipeline parameter '{name}'.")
    values: dict[str, Any] = {}
    for name, parameter in definition.parameters.items():
        value = given.get(name, parameter.default)
        if value is None:
            raise validation_error(f"Pipeline parameter '{name}' has no default value and was not given.")
        values[name] = parameter.read(value)
    return values
