"""An account with jobs, and AWS's price list."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.nodes import use
from tests.costs.price_list import PriceList
from tests.local.service_harness import Service, processing, running, training
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR, DAY = 3600.0, 86400.0
GROUPS = {"training": "/aws/sagemaker/TrainingJobs", "processing": "/aws/sagemaker/ProcessingJobs"}


class Account:
    """Jobs of the local emulator, with the times and logs that a test gives them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.now = time.time()

    def job(
        self,
        name: str,
        began: float,
        ended: float | None,
        *,
        kind: str = "training",
        count: int = 1,
        instance: str = "ml.m5.xlarge",
        bundle: str = "",
        ours: bool = True,
        **environment: str,
    ) -> str:
        """A job whose containers ran from `began` to `ended` hours before now; None: they still run."""
        variables = {"OUTCOME": "hold" if ended is None else "succeed", **environment}
        if ours:
            variables["SMSSH_ENABLE"] = "1"
        client = self.service.sagemaker
        resources = {"InstanceType": instance, "InstanceCount": count, "VolumeSizeInGB": 10}
        if kind == "training":
            more: dict[str, Any] = {}
            if bundle:
                source = {"S3DataType": "S3Prefix", "S3Uri": bundle}
                more["InputDataConfig"] = [{"ChannelName": "smssh", "DataSource": {"S3DataSource": source}}]
            request = training(ResourceConfig=resources, Environment=variables, **more)
            client.create_training_job(TrainingJobName=name, **request)
        else:
            request = processing(ProcessingResources={"ClusterConfig": resources}, Environment=variables)
            client.create_processing_job(ProcessingJobName=name, **request)
        self.times(kind, name, began, ended)
        return name

    def times(self, kind: str, name: str, began: float, ended: float | None) -> None:
        """Have a job's containers run at another time: hours before now."""
        record = self.service.sagemaker_service.jobs._store.jobs[kind][name]  # type: ignore[index]
        if ended is not None:
            until(record.done.is_set)
        record.created = record.started = self.now - began * HOUR
        record.ended = None if ended is None else self.now - ended * HOUR
        record.modified = record.ended or record.started

    def log(self, name: str, *lines: tuple[float, str], host: str = "algo-1", kind: str = "training") -> None:
        """Lines that a host wrote, each with the hours before now."""
        logs = self.service.client("logs")
        group, stream = GROUPS[kind], f"{name}/{host}-1580000000"
        for create, names in (
            (logs.create_log_group, {"logGroupName": group}),
            (logs.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
        ):
            with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                create(**names)
        events = [{"timestamp": int((self.now - ago * HOUR) * 1000), "message": text} for ago, text in lines]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    def bundle(self, **options: Any) -> str:
        """A bundle with these options; answers its address."""
        s3 = self.service.s3
        s3.create_bucket(Bucket="bundles")  # once more is not an error in us-east-1
        key = f"smssh/bundles/{hashlib.sha256(json.dumps(options).encode()).hexdigest()}"
        s3.put_object(Bucket="bundles", Key=f"{key}/options.json", Body=json.dumps(options).encode())
        return f"s3://bundles/{key}/"


@pytest.fixture
def price_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceList]:
    found = PriceList()
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", found.url)
    yield found
    found.close()


@pytest.fixture(scope="module")
def emulator() -> Iterator[Service]:
    """One for all: moto takes seconds to start."""
    with running() as service:
        yield service


@pytest.fixture
def account(
    emulator: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, price_list: PriceList
) -> Iterator[Account]:
    assert price_list.url
    use(emulator, monkeypatch)
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    yield Account(emulator)
    emulator.sessions.faults.clear()
    store = emulator.sagemaker_service.jobs._store
    for jobs in store.jobs.values():
        for name, record in jobs.items():
            if not record.done.is_set():
                emulator.release(name)
                until(record.done.is_set)
        jobs.clear()
    store.models.clear()
    emulator.sessions.nodes.nodes.clear()
    emulator.sessions.nodes.activations.clear()
    logs = emulator.client("logs")
    for group in GROUPS.values():
        with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
            logs.delete_log_group(logGroupName=group)
