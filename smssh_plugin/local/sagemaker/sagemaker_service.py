"""The local emulator's SageMaker: every operation it has, behind one `handle`.

An operation that it does not have is refused by name. Passing it on to moto would be worse than refusing it:
moto's jobs are Completed at once and its pipelines run nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..pipelines.pipeline_operations import Pipelines
from ..service_error import ServiceError
from .jobs import Jobs, Models
from .registry import Registry
from .resources import JobRecord, Store, arn
from .shapes import Shapes, validation_error
from .tuning import Tuning, TuningRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..faults import Faults
    from ..images import Images
    from ..lambda_functions import Functions
    from ..pipelines.definition import Made
    from ..pipelines.pipeline_operations import ReadObject
    from .jobs import Runner

__all__ = ["SageMaker"]

_SETTLE_SECONDS = 5.0
"""How long executions may take to notice that their jobs have ended, when the local emulator stops."""


class SageMaker:
    """The API of jobs, tuning jobs, models, the model registry, pipelines and tags.

    Args:
        runner: what runs jobs.
        read_object: reads an S3 object, for definitions and property files.
        faults: what is to go wrong with the calls that pipelines make; those of clients meet it at the gateway.
        functions: invokes Lambda functions.
        images: the images that jobs and models can be made of; None for any.
    """

    def __init__(
        self,
        runner: Runner,
        read_object: ReadObject,
        faults: Faults,
        functions: Functions,
        images: Images | None = None,
    ) -> None:
        self._functions = functions
        self._faults = faults
        self.shapes = Shapes()
        self.store = Store()
        self.jobs = Jobs(self.store, runner, images)
        self.models = Models(self.store, images)
        self.registry = Registry(self.store)
        self.tuning = Tuning(self.store, self.handle)
        self.pipelines = Pipelines(
            self.store, self.shapes, self._call, self._finished, self._invoke, read_object
        )
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            **self.jobs.operations(),
            **self.models.operations(),
            **self.registry.operations(),
            **self.tuning.operations(),
            **self.pipelines.operations(),
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }

    @property
    def operations(self) -> frozenset[str]:
        """The names of the operations it has."""
        return frozenset(self._operations)

    async def handle(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Args:
            operation: its name, e.g. CreateTrainingJob.
            request: its members, as JSON has them.

        Returns:
            The answer's members, times in seconds since the epoch.

        Raises:
            ServiceError: the request is refused.
        """
        act = self._operations.get(operation)
        if act is None:
            known = operation in self.shapes.operations
            why = "is not one of smssh local's operations" if known else "is not an operation of SageMaker"
            raise ServiceError("UnknownOperationException", f"{operation} {why}.")
        self.shapes.check(operation, request)
        return self.shapes.cut(operation, await act(request))

    async def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of the pipeline service's.

        Raises:
            ServiceError: the request is refused.
        """
        await self._faults.apply(f"sagemaker:{operation}")
        return await self.handle(operation, request)

    async def close(self) -> None:
        """Stop every execution and every job."""
        self.pipelines.halt()
        self.tuning.halt()
        await self.jobs.close()
        await self.tuning.settled(_SETTLE_SECONDS)
        await self.pipelines.settled(_SETTLE_SECONDS)

    async def _invoke(self, function: str, event: Any) -> Any:
        """Invoke a Lambda function as the pipeline service does; its errors are those of `Functions.invoke`."""
        await self._faults.apply("lambda:Invoke")
        return await self._functions.invoke(function, event)

    async def _finished(self, kind: Made, name: str) -> JobRecord | TuningRecord:
        """Wait until a job of a pipeline's has ended."""
        return await (self.tuning.finished(name) if kind == "tuning" else self.jobs.finished(kind, name))

    def _exists(self, resource: str) -> bool:
        if self.registry.has(resource):
            return True
        kind, _, name = resource.rpartition(":")[2].partition("/")
        table: dict[str, Any] = {
            "model": self.store.models,
            "pipeline": self.store.pipelines,
            **{f"{kind}-job": jobs for kind, jobs in self.store.jobs.items()},
        }
        if kind == "hyper-parameter-tuning-job":
            return self.tuning.has(name) and resource == arn(f"{kind}/{name}")
        if kind == "pipeline" and "/execution/" in name:
            return self.pipelines.has_execution(resource)
        return name in table.get(kind, {}) and resource == arn(f"{kind}/{name}")

    def _resource(self, request: dict[str, Any]) -> str:
        resource: str = request["ResourceArn"]
        if not self._exists(resource):
            raise validation_error(f"Could not find resource with ARN {resource}.")
        return resource

    async def _add_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        resource = self._resource(request)
        names = {tag["Key"] for tag in request["Tags"]} | set(self.store.tags.get(resource, {}))
        if len(names) > 50:
            raise validation_error("The number of tags on a resource must not exceed 50.")
        self.store.tag(resource, request["Tags"])
        return {"Tags": self.store.tags_of(resource)}

    async def _list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"Tags": self.store.tags_of(self._resource(request))}

    async def _delete_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        tags = self.store.tags.get(self._resource(request), {})
        for key in request["TagKeys"]:
            tags.pop(key, None)
        return {}
