"""Addresses: what is one, and what exactly is wrong with the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.client.addresses import KINDS, JobAddress, StepAddress, parse
from smssh_plugin.errors import ExitStatus, SmsshError

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", fullmatch=True).filter(
    lambda name: not name.startswith("algo-")
)
HOST = st.none() | st.integers(1, 500).map("algo-{}".format)


@given(HOST, NAME, st.sampled_from(KINDS))
def test_job_addresses_come_back(host, job, kind) -> None:
    address = JobAddress(host, job, kind)
    assert parse(str(address)) == address


@given(HOST, NAME, st.none() | NAME, NAME)
def test_step_addresses_come_back(host, step, execution, pipeline) -> None:
    address = StepAddress(host, step, execution, pipeline)
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("my-job.training.sagemaker", JobAddress(None, "my-job", "training")),
        ("algo-2.My_Job.Processing.SageMaker", JobAddress("algo-2", "My_Job", "processing")),
        ("algo-1.transform.sagemaker", JobAddress(None, "algo-1", "transform")),
        ("Train.churn.pipeline.sagemaker.", StepAddress(None, "Train", None, "churn")),
        ("algo-2.Train.churn.pipeline.sagemaker", StepAddress("algo-2", "Train", None, "churn")),
        ("Train.abc.churn.pipeline.sagemaker", StepAddress(None, "Train", "abc", "churn")),
        ("algo-1.Train.abc.churn.pipeline.sagemaker", StepAddress("algo-1", "Train", "abc", "churn")),
    ],
)
def test_forms(text, address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not end in"),
        ("my-job", "does not end in"),
        ("my-job.training", "does not end in"),
        ("training.sagemaker", "does not end in"),
        ("my-job.trainig.sagemaker", "no kind 'trainig'"),
        ("a.b.c.training.sagemaker", "3 names stand before the kind"),
        ("host.job.training.sagemaker", "'host' is not a host"),
        ("my job.training.sagemaker", "'my job' is not a name"),
        ("..training.sagemaker", "'' is not a name"),
        ("-oProxyCommand=x.training.sagemaker", "is not a name"),
        ("churn.pipeline.sagemaker", "a step and a pipeline"),
        ("x.Train.abc.churn.pipeline.sagemaker", "'x' is not a host"),
        ("a.b.c.d.e.pipeline.sagemaker", "too many names"),
    ],
)
def test_what_is_wrong(text, why) -> None:
    with pytest.raises(SmsshError, match=why) as caught:
        parse(text)
    assert caught.value.status is ExitStatus.USAGE
    assert "sagemaker" in (caught.value.hint or "")
