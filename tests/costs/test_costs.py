"""`smssh costs` against the local emulator: jobs, logs, bundles and nodes, and a price list over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli import main
from smssh_plugin.costs import prices as prices_module
from smssh_plugin.costs.holds import spans
from smssh_plugin.costs.jobs import SpentJob
from smssh_plugin.costs.prices import Price, Prices
from smssh_plugin.costs.spent import Spent, sums
from smssh_plugin.costs.waiting import sentence
from smssh_plugin.errors import ExitStatus
from smssh_plugin.local.faults import Fault
from smssh_plugin.supervisor import hold
from tests.client.nodes import add_node, set_tag
from tests.local.service_harness import definition, step, training, transform

if TYPE_CHECKING:
    from tests.costs.conftest import Account
    from tests.costs.price_list import PriceList

HELD = "smssh: held (exit status 1): smssh connect x | nobody connected, 10 min left"
STILL = "smssh: held: smssh connect x | nobody connected, 9 min left"
RETRIED = "smssh: retried: the entry point runs again"
RELEASED = "smssh: released: somebody asked for it"
DENIED = (
    "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: {0} on resource: * because no "
    "identity-based policy allows the {0} action"
)


def run(*words: str) -> int:
    return main(["costs", *words])


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run("--json", *words) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def priced(price_list: PriceList) -> None:
    price_list.node("0.0100")
    price_list.instance("ml.m5.xlarge", "0.2400000000")
    price_list.instance("ml.m5.xlarge", "0.3000000000", component="Processing")
    price_list.instance("ml.m5.xlarge", "0.5000000000", component="Studio-Notebook")


def test_hours_of_nodes_and_minutes_of_holds_are_priced(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(price_list)
    account.job("held", 4, 1, count=2, SMSSH_OWNER="ann")
    account.log("held", (3, HELD), (2.9, STILL), (2.5, RETRIED), (2.25, HELD), (2, RELEASED))
    account.job("plain", 3, 2, kind="processing", SMSSH_OWNER="ann")
    account.log("plain", (2.5, "epoch 1"), kind="processing")
    account.job("without", 3, 2, ours=False)
    found = told(capsys)
    jobs = {each["job"]: each for each in found["jobs"]}
    assert set(jobs) == {"held", "plain"}
    assert jobs["held"]["node_hours"] == 6.0  # 2 hosts for 3 hours
    assert jobs["held"]["hold_minutes"] == pytest.approx(45)
    assert jobs["held"]["node_cost"] == {"amount": 0.06, "currency": "USD"}
    assert jobs["held"]["hold_cost"] == {"amount": 0.36, "currency": "USD"}  # 2 instances for 0.75 h at 0.24
    assert jobs["plain"]["node_cost"] == {"amount": 0.01, "currency": "USD"}
    assert found["total"] == {
        "jobs": 2,
        "node_hours": 7.0,
        "hold_minutes": pytest.approx(45),
        "cost": {"amount": 0.43, "currency": "USD"},
    }
    assert found["missing"] == []


def test_the_table_has_a_row_for_each_owner_pipeline_and_step(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(price_list)
    for name, owner, hours in (("a", "ann", 2), ("b", "ann", 3), ("c", "ben", 10)):
        account.job(name, hours + 1, 1, SMSSH_OWNER=owner, SMSSH_STEP="Train")
        account.log(name, (1.5, "epoch 1"))
    assert run() == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split() for line in out] == [
        ["OWNER", "PIPELINE", "STEP", "JOBS", "NODE", "HOURS", "HOLD", "MINUTES", "COST"],
        ["ben", "-", "Train", "1", "10.00", "0.0", "0.10", "USD"],
        ["ann", "-", "Train", "2", "5.00", "0.0", "0.05", "USD"],
        ["total", "3", "15.00", "0.0", "0.15", "USD"],
    ]
    assert run("--by", "owner", "--owner", "ann") == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [["ann", "2", "5.00"]]


def test_the_pipeline_is_that_of_the_jobs_execution(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"SMSSH_ENABLE": "1", "SMSSH_STEP": "Train"}
    for name in ("churn", "other"):
        account.service.pipeline(
            definition(step("Train", "Training", training(Environment=environment))), name
        )
    arn = account.service.start_pipeline("churn")
    account.service.execution(arn, "Succeeded")
    (job,) = told(capsys)["jobs"]
    assert (job["pipeline"], job["step"]) == ("churn", "Train")
    assert job["execution"] == arn.rpartition("/")[2]


def test_what_may_not_be_listed_leaves_the_execution(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("pipelines-abc-Train-x", 2, 1)
    account.service.sessions.faults.add(
        Fault("sagemaker:ListPipelines", "AccessDeniedException", DENIED.format("sagemaker:ListPipelines"))
    )
    assert run() == 0
    shown = capsys.readouterr()
    assert "abc" in shown.out
    assert "pipelines are not known" in shown.err
    assert "sagemaker:ListPipelines" in shown.err


def test_only_what_lies_in_the_time_counts(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.job("long", 100, None)
    account.log("long", (99, HELD), (23, RELEASED), (0.5, HELD))
    account.job("before", 100, 50)
    account.job("across", 30, 22)
    (across, long) = sorted(told(capsys, "--since", "1d")["jobs"], key=lambda each: str(each["job"]))
    assert across["node_hours"] == pytest.approx(2, abs=0.1)
    assert long["node_hours"] == pytest.approx(24, abs=0.1)
    assert long["hold_minutes"] == pytest.approx(60 + 30, abs=1)
    assert long["ended"] is None


def test_without_the_permission_for_prices_one_line_says_which(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    price_list.refusal = (
        400,
        {"__type": "AccessDeniedException", "Message": DENIED.format("pricing:GetProducts")},
    )
    for name in ("a", "b"):
        account.job(name, 3, 1)
        account.log(name, (2, HELD), (1.5, RELEASED))
    assert run() == 0
    shown = capsys.readouterr()
    assert "COST" not in shown.out
    assert "4.00" in shown.out
    assert "60.0" in shown.out
    assert shown.err.splitlines() == ["prices are not known: pricing:GetProducts is not allowed"]
    assert len(price_list.asked) == 1


def test_prices_are_read_once_a_day(account: Account, price_list: PriceList, tmp_path: Path) -> None:
    priced(price_list)
    session = AwsSession()
    assert Prices(session).instance("training", "ml.m5.xlarge") == Price(0.24, "USD")
    assert Prices(session).node() == Price(0.01, "USD")
    assert Prices(session).instance("training", "ml.unheard.of") is None
    count = len(price_list.asked)
    again = Prices(AwsSession())
    assert again.instance("training", "ml.m5.xlarge") == Price(0.24, "USD")
    assert again.instance("training", "ml.unheard.of") is None
    assert len(price_list.asked) == count
    assert account.service
    for path in (tmp_path / "smssh" / "prices").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        old = time.time() - prices_module.FRESH_SECONDS - 1
        os.utime(path, (old, old))
    price_list.products.clear()
    price_list.instance("ml.m5.xlarge", "0.26")
    assert Prices(AwsSession()).instance("training", "ml.m5.xlarge") == Price(0.26, "USD")


def test_a_price_that_is_only_remembered_asks_nothing(account: Account, price_list: PriceList) -> None:
    priced(price_list)
    assert account.service
    assert Prices(AwsSession(), ask=False).instance("training", "ml.m5.xlarge") is None
    assert not price_list.asked
    assert Prices(AwsSession()).instance("training", "ml.m5.xlarge") is not None
    assert Prices(AwsSession(), ask=False).instance("training", "ml.m5.xlarge") == Price(0.24, "USD")


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ([("0.24", {}), ("0.24", {})], Price(0.24, "USD")),
        ([("0.24", {}), ("0.26", {})], None),  # which one is meant is not said
        ([("0.24", {"unit": "GB-Mo"})], None),
        ([("0.0000000000", {})], None),
        ([("NaN", {})], None),
        ([("", {})], None),
        ([("1.5", {"currency": "CNY"})], Price(1.5, "CNY")),
        ([("0.24", {"component": "training"})], Price(0.24, "USD")),
        ([("0.24", {"component": "Hosting"})], None),
        ([("0.24", {"region": "eu-west-1"})], None),
    ],
)
def test_a_price_is_taken_only_where_the_list_says_one(
    account: Account,
    price_list: PriceList,
    products: list[tuple[str, dict[str, Any]]],
    expected: Price | None,
) -> None:
    assert account.service
    for price, more in products:
        price_list.instance("ml.m5.xlarge", price, **more)
    prices = Prices(AwsSession())
    assert prices.instance("training", "ml.m5.xlarge") == expected
    assert prices.trouble is None
    assert bool(prices.unknown) is (expected is None)


@pytest.mark.parametrize(
    ("product", "expected"),
    [("not JSON", None), ("[]", None), ('{"product": 1}', None), ('{"product": {"attributes": []}}', None)],
)
def test_a_list_that_is_something_else_has_no_price(
    account: Account, price_list: PriceList, monkeypatch: pytest.MonkeyPatch, product: str, expected: None
) -> None:
    assert account.service
    monkeypatch.setattr(price_list, "_page", lambda _: {"PriceList": [product]})
    assert Prices(AwsSession()).instance("training", "ml.m5.xlarge") is expected


@pytest.mark.parametrize(
    ("region", "component", "kind"),
    [("eu-west-1", "Batch Transform", "transform"), ("eu-west-1", "BatchTransform", "transform")],
)
def test_the_component_is_that_of_the_kind_of_job(
    account: Account, price_list: PriceList, region: str, component: str, kind: str
) -> None:
    assert account.service
    price_list.instance("ml.m5.xlarge", "0.3", component=component, region=region)
    assert Prices(AwsSession(region)).instance(kind, "ml.m5.xlarge") == Price(0.3, "USD")


@pytest.mark.parametrize(
    ("region", "place"),
    [
        ("us-west-2", "us-east-1"),
        ("sa-east-1", "us-east-1"),
        ("eu-north-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
        ("cn-north-1", "cn-northwest-1"),
        ("eusc-de-east-1", "eusc-de-east-1"),
    ],
)
def test_the_nearest_price_list_is_asked(
    account: Account, price_list: PriceList, region: str, place: str
) -> None:
    assert account.service
    Prices(AwsSession(region)).node()
    assert price_list.regions == {place}
    assert price_list.asked[0]["Filters"] == [{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}]


def test_a_partition_without_a_price_list_has_no_prices(account: Account, price_list: PriceList) -> None:
    assert account.service
    prices = Prices(AwsSession("us-gov-west-1"))
    assert prices.node() is None
    assert prices.trouble is not None
    assert prices.trouble.message == "prices are not known: no price list is known for us-gov-west-1"
    assert not price_list.asked


def test_a_price_list_that_nobody_answers_for_is_asked_once(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{port}")
    account.job("a", 2, 1)
    assert run() == 0
    shown = capsys.readouterr()
    assert "1.00" in shown.out
    assert shown.err.count("prices are not known: AWS cannot be reached") == 1


@pytest.mark.parametrize(("said", "currency"), [("6 USD", "USD"), ("6USD", "USD"), ("6", "")])
def test_the_price_that_a_job_says_is_taken(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str], said: str, currency: str
) -> None:
    price_list.node("0.01")
    account.job("a", 2, 1, count=2, SMSSH_PRICE_PER_HOUR=said)
    account.log("a", (2, HELD), (1.5, RELEASED))
    found = told(capsys)
    assert found["jobs"][0]["hold_cost"] == {"amount": 6.0, "currency": currency}
    assert found["total"]["cost"] == {"amount": 6.02, "currency": "USD"}


def test_the_owner_is_that_of_the_bundle(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    place = account.bundle(owner="ann", hosts=1)
    account.job("bundled", 2, 1, count=4, bundle=place)
    account.job("native", 2, 1, bundle=account.bundle(transport="native"))
    account.job("other", 2, 1, bundle="s3://elsewhere/x/")
    account.job("odd", 2, 1, count=4, bundle=account.bundle(hosts="9" * 5000))
    jobs = {each["job"]: each for each in told(capsys)["jobs"]}
    assert (jobs["bundled"]["owner"], jobs["bundled"]["node_hours"]) == ("ann", 1.0)
    assert jobs["native"]["node_hours"] == 0.0
    assert jobs["other"]["owner"] == ""
    assert jobs["odd"]["node_hours"] == 4.0


def test_the_owner_is_that_of_the_node_while_there_is_one(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.job("runs", 1, None)
    node = add_node(account.service, "runs", Step="Fit")
    set_tag(account.service, node, "SSHOwner", "ben")
    add_node(account.service, "endpoint-1", "inference")
    gone = add_node(account.service, "gone")
    account.service.sessions.nodes.nodes[gone].pinged = time.time() - 7200
    found = told(capsys)
    jobs = {each["job"]: each for each in found["jobs"]}
    assert (jobs["runs"]["owner"], jobs["runs"]["step"]) == ("ben", "Fit")
    assert jobs["endpoint-1"]["kind"] == "inference"
    assert set(jobs) == {"runs", "endpoint-1"}
    assert found["orphans"] == 1
    assert run() == 0
    assert "1 node is registered and not online: see `smssh cleanup`" in capsys.readouterr().err


def test_a_node_does_not_change_whose_job_it_was(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any job can register a node that claims to be another's host."""
    account.job("runs", 1, None, SMSSH_OWNER="ann", SMSSH_STEP="Fit")
    node = add_node(account.service, "runs", Step="Else")
    set_tag(account.service, node, "SSHOwner", "eve")
    (job,) = told(capsys)["jobs"]
    assert (job["owner"], job["step"]) == ("ann", "Fit")


def test_a_bucket_that_may_not_be_read_hides_no_owner_in_another(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.service.s3.create_bucket(Bucket="closed")
    account.job("first", 3, 2, bundle="s3://closed/x/")
    account.job("second", 3, 2, bundle="s3://closed/y/")
    account.job("bundled", 2, 1, bundle=account.bundle(owner="ann"))
    asked = []
    plain = AwsSession.get_object

    def read(aws: AwsSession, bucket: str, key: str, owner: str = "") -> bytes | None:
        asked.append(bucket)
        if bucket == "closed":
            raise aws.refused("s3", "GetObject", ("AccessDenied", "Access Denied"), "")
        return plain(aws, bucket, key, owner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AwsSession, "get_object", read)
        patch.setattr("smssh_plugin.costs.jobs.at_once", lambda call, all_: [call(each) for each in all_])
        found = told(capsys)
    assert {each["job"]: each["owner"] for each in found["jobs"]} == {
        "first": "",
        "second": "",
        "bundled": "ann",
    }
    assert sorted(asked) == ["bundles", "closed"]
    (line,) = [each for each in found["missing"] if "owners" in each]
    assert line.startswith("owners of some ended jobs are not known: access denied: GetObject")


def test_options_that_nobody_wrote_for_us_are_no_options(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    place = account.bundle(owner="ann")
    key = place.removeprefix("s3://bundles/")
    account.service.s3.put_object(Bucket="bundles", Key=f"{key}options.json", Body=b"[" * 200_000)
    account.job("nested", 2, 1, bundle=place)
    (job,) = told(capsys)["jobs"]
    assert job["owner"] == ""


def test_logs_of_one_kind_that_may_not_be_read_leave_those_of_the_others(
    account: Account, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    account.job("held", 4, 1, kind="processing")
    account.log("held", (3, HELD), (2, RELEASED), kind="processing")
    account.job("plain", 3, 2)
    plain = AwsSession.call

    def call(aws: AwsSession, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        if service == "logs" and "Training" in str(arguments.get("logGroupName")):
            raise aws.refused("logs", "FilterLogEvents", ("AccessDeniedException", "no"), "")
        return plain(aws, service, operation, **arguments)

    monkeypatch.setattr(AwsSession, "call", call)
    monkeypatch.setattr("smssh_plugin.costs.spent.at_once", lambda ask, jobs: [ask(one) for one in jobs])
    found = {each["job"]: each["hold_minutes"] for each in told(capsys)["jobs"]}
    assert found == {"held": pytest.approx(60), "plain": None}


def test_logs_that_may_not_be_read_leave_the_hours(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(price_list)
    account.job("a", 2, 1)
    account.service.sessions.faults.add(
        Fault("logs:FilterLogEvents", "AccessDeniedException", DENIED.format("logs:FilterLogEvents"))
    )
    found = told(capsys)
    assert found["jobs"][0]["hold_minutes"] is None
    assert found["jobs"][0]["node_cost"] == {"amount": 0.01, "currency": "USD"}
    assert found["total"]["cost"] is None  # a part of it is not known
    assert any("logs:FilterLogEvents" in each for each in found["missing"])


def test_a_job_without_a_log_is_said(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(price_list)
    account.job("a", 2, 1)
    found = told(capsys)
    assert found["jobs"][0]["hold_minutes"] is None
    assert found["missing"] == ["hold minutes of 1 job are not known: it has no log"]


@pytest.mark.parametrize("action", ["sagemaker:ListTrainingJobs", "sagemaker:DescribeTrainingJob"])
def test_jobs_that_may_not_be_read_are_an_error(
    account: Account, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    account.job("a", 2, 1)
    account.job("b", 2, 1, kind="processing")
    account.service.sessions.faults.add(Fault(action, "AccessDeniedException", DENIED.format(action)))
    assert run() == ExitStatus.REFUSED
    shown = capsys.readouterr()
    assert "1.00" in shown.out
    assert action in shown.err
    assert "not counted" in shown.err


def test_nothing_that_ran_is_said(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.job("a", 2, 1, ours=False)
    assert run("--since", "7d") == 0
    assert capsys.readouterr().out == "no job with SSH ran in us-east-1 in the last 7 d\n"


@pytest.mark.parametrize("since", ["0", "366d", "soon"])
def test_a_time_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], since: str) -> None:
    assert run("--since", since) == ExitStatus.USAGE
    assert "--since" in capsys.readouterr().err


def test_names_are_shown_as_text(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    place = account.bundle(owner="\x1b]0;owned\x07ann")
    account.job("a", 2, 1, bundle=place)
    assert run() == 0
    assert "\x1b" not in capsys.readouterr().out


def test_transform_jobs_are_read_with_their_model(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    client = account.service.sagemaker
    source = {"S3DataType": "S3Prefix", "S3Uri": account.bundle(owner="ann"), "CompressionType": "None"}
    container = {
        "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/job:1",
        "AdditionalModelDataSources": [{"ChannelName": "smssh", "S3DataSource": source}],
    }
    role = "arn:aws:iam::123456789012:role/SageMakerRole"
    client.create_model(ModelName="model", PrimaryContainer=container, ExecutionRoleArn=role)
    client.create_transform_job(
        TransformJobName="t", **transform(Environment={"SMSSH_ENABLE": "1", "SMSSH_STEP": "Score"})
    )
    account.times("transform", "t", 2, 1)
    (job,) = told(capsys)["jobs"]
    assert (job["owner"], job["step"], job["node_hours"]) == ("ann", "Score", 1.0)
    assert job["instances"] == [{"type": "ml.m5.large", "count": 1}]


def test_a_job_that_only_has_remote_debugging_has_no_node(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    request = training(RemoteDebugConfig={"EnableRemoteDebug": True})
    account.service.sagemaker.create_training_job(TrainingJobName="n", **request)
    account.times("training", "n", 2, 1)
    (job,) = told(capsys)["jobs"]
    assert job["node_hours"] == 0.0


A, B = "job/algo-1-1", "job/algo-2-1"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], []),
        ([(A, 1.0, HELD), (A, 2.0, STILL), (A, 5.0, RETRIED)], [(1.0, 5.0)]),
        ([(A, 1.0, HELD), (B, 2.0, HELD), (A, 4.0, RELEASED), (B, 6.0, RELEASED)], [(1.0, 6.0)]),
        (
            [(A, 1.0, HELD), (A, 2.0, RELEASED), (A, 3.0, HELD)],
            [(1.0, 2.0), (3.0, 9.0)],
        ),  # it was killed in it
        ([(A, 1.0, RELEASED), (A, 2.0, STILL)], []),
        ([(A, 1.0, "the log says smssh: held (x)"), (A, 2.0, RELEASED)], []),
    ],
)
def test_times_of_holds(events: list[tuple[str, float, str]], expected: list[tuple[float, float]]) -> None:
    assert spans(events, 9.0) == expected


def test_currencies_are_not_added() -> None:
    def one(currency: str) -> Spent:
        job = SpentJob("training", f"job-{currency}", (("ml.m5.large", 1),), 0.0, 1.0, 1)
        return Spent(job, 1.0, 0.0, Price(1.0, currency), Price(0.0, ""))

    (whole,) = sums([one("USD"), one("CNY")], ())
    assert whole.cost is None
    assert whole.node_hours == 2.0


def test_what_waiting_costs_in_words() -> None:
    assert sentence(Price(2.42, "USD"), 2, 600) == (
        "2 instances cost 2.42 USD an hour, 0.40 USD since the hold began"
    )
    assert sentence(Price(1.21, "USD"), 1) == "the instance costs 1.21 USD an hour"


def test_a_list_says_what_holds_cost_where_the_price_is_remembered(
    account: Account, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(price_list)
    account.job("waits", 1, None, count=2)
    set_tag(account.service, add_node(account.service, "waits"), "SMSSHState", "held")
    assert main(["list"]) == 0
    assert "an hour" not in capsys.readouterr().err
    assert not price_list.asked
    Prices(AwsSession()).instance("training", "ml.m5.xlarge")
    count = len(price_list.asked)
    assert main(["list"]) == 0
    said = "waits.training.sagemaker is held: 2 instances cost 0.48 USD an hour"
    assert capsys.readouterr().err.splitlines() == [said]
    assert len(price_list.asked) == count


def test_the_words_of_a_hold_are_those_that_are_looked_for() -> None:
    """What hosts write: `log_events` puts `smssh: ` in front of these messages."""
    source = Path(hold.__file__).read_text(encoding="utf-8")
    said = re.findall(r'self\._notify\("\w+", f?"([a-z]+[: ][({]?)', source)
    assert {"held (", "retried:", "released:"} <= {each.strip() for each in said}
