"""What the checks look at: an AWS session, and a job or a pipeline where one was named; asked for once each."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..aws import identity_calls
from ..client import native
from ..client.addresses import DEFAULT_HOST, JobAddress, StepAddress, parse
from ..client.executions import job_of_step
from ..client.job_names import StepJob
from ..client.job_state import DESCRIBE, described_job
from ..client.no_node import own_name
from ..client.patience import NotYet
from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..aws.identity_calls import Caller
    from ..aws.session import AwsSession

__all__ = ["Case", "Job"]

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """The job that was named.

    Attributes:
        job: its names and kind, as look-ups take them.
        name: its own name.
        host: the host that is to be entered.
        described: SageMaker's description of it.
    """

    job: StepJob
    name: str
    host: str
    described: dict[str, Any]

    @property
    def kind(self) -> str:
        """training, processing or transform."""
        return self.job.kind

    @property
    def status(self) -> str:
        """InProgress, Completed, ..."""
        return str(self.described.get(DESCRIBE[self.kind][2]) or "")

    @property
    def native(self) -> bool:
        """Whether it is entered by SageMaker's remote debugging, without a managed node."""
        return self.kind == "training" and native.enabled(self.described)


@dataclass
class Case:
    """What the checks look at; for any number of threads.

    Attributes:
        aws: the AWS session.
        job_name: the job that was named, by its name or an address; None where none was.
        pipeline_name: the pipeline that was named; None where none was.
        subnets: the ids of the subnets that were named.
        security_groups: the ids of the security groups that were named with them.
    """

    aws: AwsSession
    job_name: str | None = None
    pipeline_name: str | None = None
    subnets: Sequence[str] = ()
    security_groups: Sequence[str] = ()
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _answers: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def once(self, key: str, ask: Callable[[], T]) -> T:
        """What `ask` answers or raises, asked once: others who want the same wait for that one."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._answers:
                try:
                    self._answers[key] = (ask(), None)
                except Exception as trouble:  # noqa: BLE001 - raised again by everybody who asks
                    self._answers[key] = (None, trouble)
        answer, error = self._answers[key]
        if error is not None:
            raise error
        found: T = answer
        return found

    def caller(self) -> Caller:
        """Who these credentials belong to.

        Raises:
            SmsshError: STS does not say.
        """
        return self.once("caller", lambda: identity_calls.caller(self.aws))

    def job(self) -> Job:
        """The job that was named.

        Raises:
            SmsshError: NOT_FOUND: there is no such job, or the step has none (yet).
        """
        return self.once("job", self._find_job)

    def _find_job(self) -> Job:
        assert self.job_name is not None
        if "." not in self.job_name:
            for kind in DESCRIBE:
                found = described_job(self.aws, kind, self.job_name)
                if found is not None:
                    return Job(StepJob((self.job_name,), kind, ""), self.job_name, DEFAULT_HOST, found)
            raise SmsshError(
                f"there is no training, processing or transform job {self.job_name!r} in {self.aws.region}",
                hint=f"check the name, and the region (from {self.aws.region_origin}; --region names another)",
                reference="no-job",
                status=ExitStatus.NOT_FOUND,
            )
        address = parse(self.job_name)
        if isinstance(address, JobAddress) and address.kind not in DESCRIBE:
            raise SmsshError(
                f"{address} is a {address.kind} address: SageMaker has no description of a job for it",
                hint="name a training, processing or transform job",
                reference="no-job",
                status=ExitStatus.USAGE,
            )
        try:
            job = (
                job_of_step(address, self.aws)
                if isinstance(address, StepAddress)
                else StepJob((address.job,), address.kind, "")
            )
            name, described = own_name(self.aws, job, address.host or DEFAULT_HOST)
        except NotYet as not_yet:
            raise not_yet.error from None
        return Job(job, name, address.host or DEFAULT_HOST, described)
