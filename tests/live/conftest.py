"""Accounts of the local emulator: one whose IAM decides, one whose IAM decides nothing, and a price list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from smssh_plugin.aws import identity_calls, session
from smssh_plugin.live import place
from smssh_plugin.local.iam.account import read_account
from smssh_plugin.setup.files import write
from smssh_plugin.setup.parts import Setup
from smssh_plugin.setup.plan import Plan
from tests.client.nodes import use
from tests.costs.price_list import PriceList
from tests.live.accounts import ACCOUNT, reset
from tests.local.service_harness import Service
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("policies")
    write(Setup(Plan.make(account=ACCOUNT), ["node", "job", "people", "scp"]), ["json"], folder)
    service = Service(iam=read_account(folder))
    service.start()
    yield service
    service.stop()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    # What takes a moment on AWS is there at once, or never.
    monkeypatch.setattr(place, "SETTLE_SECONDS", 0.0)
    # On a busy machine an answer may take longer than on AWS.
    for module in (identity_calls, session):
        monkeypatch.setattr(module, "READ_SECONDS", LIMIT)
    return monkeypatch


@pytest.fixture
def price_list(environment: pytest.MonkeyPatch) -> Iterator[PriceList]:
    made = PriceList()
    environment.setenv("AWS_ENDPOINT_URL_PRICING", made.url)
    made.node("0.0070000000")
    made.instance("ml.m5.large", "0.1200000000")
    made.instance("ml.m5.xlarge", "0.2400000000", component="Processing")
    made.instance("ml.m5.xlarge", "0.2500000000", component="BatchTransform")
    yield made
    made.close()


@pytest.fixture
def emulator(enforcing: Service, environment: pytest.MonkeyPatch, price_list: PriceList) -> Service:
    """An account whose IAM decides, as it is before a run."""
    assert price_list.products
    use(enforcing, environment)
    # The guardrail denies what a job is not allowed anyway: with it, a denial does not show whose it is.
    reset(enforcing, without=("smssh-scp/KeepIdentity",))
    return enforcing
