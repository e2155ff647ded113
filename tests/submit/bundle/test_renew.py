"""Bundles that lie in S3 for long: verified, repaired, renewed, and their end told beforehand."""

from __future__ import annotations

import json
import warnings
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.exceptions import ClientError

from smssh_plugin import SmsshError, SSHOptions, enable, with_ssh
from smssh_plugin.manifest import MANIFEST
from smssh_plugin.submit.bundle import expiry
from smssh_plugin.submit.bundle import publish as publishing
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.expiry import RENEW_SECONDS, expiry_of
from smssh_plugin.submit.bundle.publish import publish
from smssh_plugin.submit.bundle.renew import bundles_of
from smssh_plugin.submit.bundle.store import Destination
from smssh_plugin.submit.bundle.upload import upload
from smssh_plugin.submit.options import SmsshWarning
from tests.submit.conftest import BUCKET, IMAGE, KEY, REGION, ROLE, SDK

ACCOUNT = "123456789012"
HOUR = 3600.0


class Store:
    """S3 as moto has it, with lifecycle rules, ages, and a list of the calls."""

    def __init__(self, session: boto3.Session) -> None:
        self.calls: list[tuple[str, str]] = []
        """Operation and expected owner of each call."""
        self.age = 0.0
        """Seconds that objects are older than moto thinks, except for those in `fresh`."""
        self.days: dict[str, float] = {}
        """Days after which an object is deleted, by the end of its key."""
        self.fresh: set[str] = set()
        self.refuse: set[str] = set()
        session.events.register("before-call.s3", self._before, unique_id="store-before")
        session.events.register("after-call.s3", self._after, unique_id="store-after")
        self.session = session
        self.client = session.client("s3")
        self._key = ""

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.calls]

    def _before(self, model: Any, params: Any, **_: Any) -> None:
        self.calls.append((model.name, params["headers"].get("x-amz-expected-bucket-owner", "")))
        self._key = params["url_path"].partition("?")[0]
        if model.name in self.refuse:
            raise ClientError(
                {
                    "Error": {"Code": "AccessDenied", "Message": "Access Denied"},
                    "ResponseMetadata": {"HTTPStatusCode": 403},
                },
                model.name,
            )
        if model.name == "PutObject":
            self.fresh.add(self._key.rpartition("/")[2])

    def _after(self, model: Any, parsed: Any, **_: Any) -> None:
        name = self._key.rpartition("/")[2]
        for entry in (parsed, *parsed.get("Contents", ())):
            if "LastModified" in entry and entry.get("Key", name).rpartition("/")[2] not in self.fresh:
                entry["LastModified"] -= timedelta(seconds=self.age)
        if model.name in ("GetObject", "HeadObject", "PutObject"):
            written = parsed.get("LastModified", datetime.now(timezone.utc))
            for end, days in self.days.items():
                if name.endswith(end):
                    when = format_datetime(
                        (written + timedelta(days=days)).astimezone(timezone.utc), usegmt=True
                    )
                    parsed["Expiration"] = f'expiry-date="{when}", rule-id="{quote("tidy up")}"'


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(publishing, "_published", {})
    return Store(boto3.Session(region_name=REGION))


def stored(store: Store, prefix: str, options: SSHOptions | None = None) -> tuple[Any, Destination]:
    """A bundle that is there, and where; with no call so far."""
    bundle = build(options or SSHOptions(), [KEY])
    where = Destination(store.client, BUCKET, prefix, ACCOUNT)
    upload(bundle, where)
    store.calls.clear()
    store.fresh.clear()
    return bundle, where


# -------------------------------------------------------------------------------- what is there


def test_one_that_is_whole_takes_a_few_reads(store: Store) -> None:
    bundle, where = stored(store, "whole")
    assert upload(bundle, where) == f"s3://{BUCKET}/whole/{bundle.digest}/"
    assert sorted(store.operations()) == ["GetObject", "HeadObject", "ListObjectsV2"]


@pytest.mark.parametrize("name", ["run.sh", "smssh.zip", "chain/smssh_chain.py", MANIFEST])
def test_one_file_that_is_gone_is_put_again(
    store: Store, s3: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, where = stored(store, "gone")
    s3.delete_object(Bucket=BUCKET, Key=f"gone/{bundle.digest}/{name}")
    upload(bundle, where)
    body = s3.get_object(Bucket=BUCKET, Key=f"gone/{bundle.digest}/{name}")["Body"].read()
    assert body == bundle.files[name]
    # That one, and the manifest at the end.
    assert store.operations().count("PutObject") == (1 if name == MANIFEST else 2)
    assert (name in capsys.readouterr().err) is (name != MANIFEST)


@pytest.mark.parametrize("name", ["run.sh", "options.json", MANIFEST])
@pytest.mark.parametrize("same_size", [True, False])
def test_one_file_that_was_changed_is_put_again(store: Store, s3: Any, name: str, same_size: bool) -> None:
    bundle, where = stored(store, "changed")
    key = f"changed/{bundle.digest}/{name}"
    data = bundle.files[name]
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * len(data) if same_size else data + b"#")
    upload(bundle, where)
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == data


def test_a_file_that_does_not_belong_there_is_refused(store: Store, s3: Any) -> None:
    """Its folder is on PYTHONPATH of the job."""
    bundle, where = stored(store, "more")
    s3.put_object(Bucket=BUCKET, Key=f"more/{bundle.digest}/json.py", Body=b"")
    with pytest.raises(SmsshError, match=r"files that are not the bundle's.*: json\.py") as caught:
        upload(bundle, where)
    assert caught.value.reference == "bundle-damaged"
    s3.delete_object(Bucket=BUCKET, Key=f"more/{bundle.digest}/json.py")
    s3.put_object(Bucket=BUCKET, Key=f"more/{bundle.digest}/", Body=b"")  # a folder, as the console makes one
    upload(bundle, where)


def test_where_etags_say_nothing_the_checksum_does(store: Store, s3: Any) -> None:
    """Objects that are encrypted with a key of KMS have an ETag that is not an MD5."""
    bundle, where = stored(store, "kms")

    def hide(parsed: Any, **_: Any) -> None:
        for entry in parsed.get("Contents", ()):
            entry["ETag"] = '"{}"'.format("0" * 32)

    store.client.meta.events.register("after-call.s3.ListObjectsV2", hide)
    upload(bundle, where)
    assert "PutObject" not in store.operations()
    assert store.operations().count("HeadObject") == len(bundle.files) - 1
    data = bundle.files["run.sh"]
    s3.put_object(
        Bucket=BUCKET, Key=f"kms/{bundle.digest}/run.sh", Body=b"x" * len(data), ChecksumAlgorithm="SHA256"
    )
    upload(bundle, where)
    body = s3.get_object(Bucket=BUCKET, Key=f"kms/{bundle.digest}/run.sh")["Body"].read()
    assert body == data


def test_one_that_may_not_be_listed_is_looked_at_file_by_file(store: Store, s3: Any) -> None:
    bundle, where = stored(store, "unlisted")
    store.refuse = {"ListObjectsV2"}
    upload(bundle, where)
    assert "PutObject" not in store.operations()
    s3.delete_object(Bucket=BUCKET, Key=f"unlisted/{bundle.digest}/env.sh")
    upload(bundle, where)
    assert s3.head_object(Bucket=BUCKET, Key=f"unlisted/{bundle.digest}/env.sh")


def test_what_was_moved_to_an_archive_is_put_again(store: Store) -> None:
    """A transition, which S3 does not announce: nobody can read an object of these classes."""
    bundle, where = stored(store, "archived")

    def archive(parsed: Any, **_: Any) -> None:
        for entry in parsed.get("Contents", ()):
            if entry["Key"].endswith("run.sh"):
                entry["StorageClass"] = "DEEP_ARCHIVE"

    store.client.meta.events.register("after-call.s3.ListObjectsV2", archive)
    upload(bundle, where)
    assert store.operations().count("PutObject") == 2


def test_a_process_that_lives_for_long_looks_again(
    store: Store, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/long", owner="long")
    address = publish(options, store.session)
    key = address[len(f"s3://{BUCKET}/") :] + "run.sh"
    s3.delete_object(Bucket=BUCKET, Key=key)
    monkeypatch.setattr(publishing, "FRESH_SECONDS", -1.0)
    publish(options, store.session)
    assert s3.head_object(Bucket=BUCKET, Key=key)


# -------------------------------------------------------------------------------- its age and its end


@pytest.mark.parametrize(
    ("age", "days", "renewed"),
    [
        (RENEW_SECONDS - HOUR, None, False),
        (RENEW_SECONDS + HOUR, None, True),
        (2 * 24 * HOUR, 30.0, False),
        (2 * 24 * HOUR, 3.0, True),
        (12 * HOUR, 1.5, False),
    ],
)
def test_what_is_old_is_put_again(store: Store, age: float, days: float | None, renewed: bool) -> None:
    bundle, where = stored(store, f"old-{age}-{days}")
    store.age = age
    store.days = {} if days is None else {"": days}
    upload(bundle, where)
    assert store.operations().count("PutObject") == (len(bundle.files) if renewed else 0)
    if renewed:  # and not again
        store.calls.clear()
        upload(bundle, where)
        assert "PutObject" not in store.operations()


def test_who_may_not_write_uses_what_is_old(store: Store) -> None:
    bundle, where = stored(store, "read-only")
    store.age = RENEW_SECONDS + HOUR
    store.refuse = {"PutObject"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upload(bundle, where)
    store.days = {"": 10.0}
    with pytest.warns(SmsshWarning, match="cannot be renewed: .*Access ?Denied"):
        upload(bundle, where)


def test_a_rule_for_large_objects_is_seen_too(store: Store) -> None:
    bundle, where = stored(store, "large")
    store.days = {"smssh.zip": 20.0}
    upload(bundle, where)
    assert expiry._ends[f"s3://{BUCKET}/large/{bundle.digest}/"].rule == "tidy up"


def test_what_s3_says_of_the_end() -> None:
    said = 'expiry-date="Fri, 21 Dec 2027 00:00:00 GMT", rule-id="a%20b"'
    found = expiry_of({"Expiration": said})
    assert found is not None
    assert str(found) == "the lifecycle rule 'a b' of the bucket deletes it on 2027-12-21"
    assert expiry_of({"Expiration": 'expiry-date="soon", rule-id="x"'}) is None
    assert expiry_of({}) is None


TRAINING: dict[str, Any] = {
    "TrainingJobName": "t",
    "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
}


def test_a_pipeline_is_told_of_a_rule_and_a_job_only_of_one_that_is_near(store: Store) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/told", owner="told")
    store.days = {"": 30.0}
    client = enable(store.session.client("sagemaker"), options, boto_session=store.session)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client.create_training_job(**TRAINING)
    assert not [each for each in said if "lifecycle" in str(each.message)]
    step = {
        "Name": "T",
        "Type": "Training",
        "Arguments": {name: TRAINING[name] for name in TRAINING if name != "TrainingJobName"},
    }
    definition = json.dumps({"Version": "2020-12-01", "Steps": [step]})
    when = datetime.now(timezone.utc) + timedelta(days=30)
    with pytest.warns(
        SmsshWarning, match=rf"lifecycle rule 'tidy up' .* on {when:%Y-%m-}.*bundle renew --pipeline"
    ):
        client.create_pipeline(
            PipelineName="told", PipelineDefinition=definition, RoleArn=ROLE, ClientRequestToken="x" * 32
        )


# -------------------------------------------------------------------------------- a pipeline of last year


def upserted(store: Store, name: str, options: SSHOptions) -> str:
    """A pipeline with one step that was upserted; answers the address of its bundle."""
    client = enable(store.session.client("sagemaker"), options, boto_session=store.session)
    arguments = {key: value for key, value in TRAINING.items() if key != "TrainingJobName"}
    definition = {
        "Version": "2020-12-01",
        "Steps": [{"Name": "T", "Type": "Training", "Arguments": arguments}],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.create_pipeline(
            PipelineName=name,
            PipelineDefinition=json.dumps(definition),
            RoleArn=ROLE,
            ClientRequestToken="x" * 32,
        )
    text = client.describe_pipeline(PipelineName=name)["PipelineDefinition"]
    (address,) = bundles_of(json.loads(text))
    store.calls.clear()
    store.fresh.clear()
    return address


def test_a_start_by_an_enabled_client_renews_what_is_old(store: Store) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/year", owner="year")
    address = upserted(store, "year", options)
    store.age = RENEW_SECONDS + HOUR
    client = enable(store.session.client("sagemaker"), options, boto_session=store.session)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmsshWarning)
        client.start_pipeline_execution(PipelineName="year")
    bundle = build(options, [KEY])
    assert address.endswith(f"{bundle.digest}/")
    assert store.operations().count("PutObject") == len(bundle.files)
    store.calls.clear()
    client.start_pipeline_execution(PipelineName="year")
    assert "PutObject" not in store.operations()


def test_a_start_whose_bundle_is_gone_is_warned_of_and_made(store: Store, s3: Any) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/lost", owner="lost")
    address = upserted(store, "lost", options)
    s3.delete_object(Bucket=BUCKET, Key=address[len(f"s3://{BUCKET}/") :] + "run.sh")
    client = enable(store.session.client("sagemaker"), options, boto_session=store.session)
    with pytest.warns(
        SmsshWarning, match=r"pipeline 'lost': the bundle .* is not whole \(run\.sh\).* upsert"
    ):
        assert client.start_pipeline_execution(PipelineName="lost")["PipelineExecutionArn"]


def test_a_start_by_who_may_not_read_the_pipeline(store: Store) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/unread", owner="unread")
    upserted(store, "unread", options)
    client = enable(store.session.client("sagemaker"), options, boto_session=store.session)

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribePipeline")

    client.meta.events.register("before-call.sagemaker.DescribePipeline", refuse)
    with pytest.warns(SmsshWarning, match="its bundles were not looked at"):
        assert client.start_pipeline_execution(PipelineName="unread")["PipelineExecutionArn"]


def test_a_pipeline_of_the_sdk_is_found_to_use_its_bundle(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(sdk.training(session), session=session)
    with_ssh(pipeline, owner="of-the-sdk")
    definition = json.loads(pipeline.definition())
    assert len(bundles_of(definition)) == 1


# -------------------------------------------------------------------------------- whose bucket it is


def test_every_call_names_the_owner(store: Store) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/owned", owner="owned")
    address = publish(options, store.session)
    publish(SSHOptions(bundle=address), store.session)
    calls = list(store.calls)
    upserted(store, "owned", options)
    client = enable(store.session.client("sagemaker"), options, boto_session=store.session)
    store.client.put_object(Bucket=BUCKET, Key="p.json", Body=b'{"Steps": []}', ExpectedBucketOwner=ACCOUNT)
    client.update_pipeline(
        PipelineName="owned", PipelineDefinitionS3Location={"Bucket": BUCKET, "ObjectKey": "p.json"}
    )
    calls += store.calls
    assert {owner for _, owner in calls} == {ACCOUNT}
    assert {name for name, _ in calls} == {"GetObject", "PutObject", "ListObjectsV2", "HeadObject"}


def test_a_bucket_of_another_account_is_used_where_it_is_named(
    store: Store, boto_session: boto3.Session
) -> None:
    other = "999999999999"
    named = SSHOptions(bundle_prefix=f"s3://{BUCKET}/theirs?owner={other}", owner="theirs")
    address = publish(named, store.session)
    assert "?" not in address
    assert {owner for _, owner in store.calls} == {other}
    publish(SSHOptions(bundle=f"{address}?owner={other}"), store.session)
    assert {owner for _, owner in store.calls} == {other}


def test_a_bucket_of_another_account_says_how_to_name_it(store: Store) -> None:
    store.refuse = {"ListObjectsV2", "GetObject", "HeadObject", "PutObject"}  # what S3 does then
    with pytest.raises(SmsshError) as caught:
        publish(SSHOptions(bundle_prefix=f"s3://{BUCKET}/theirs", owner="x"), store.session)
    assert f"must belong to the account {ACCOUNT}" in (caught.value.hint or "")
    assert f"s3://{BUCKET}/theirs?owner=ACCOUNT" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "address", ["s3://bucket/x?owner=12", "s3://bucket/x?owner=", "s3://bucket?owner=ann"]
)
def test_an_owner_that_is_no_account(address: str) -> None:
    with pytest.raises(SmsshError, match="does not name an account") as caught:
        SSHOptions(bundle_prefix=address)
    assert caught.value.reference == "bad-bucket-owner"


def test_hosts_and_clients_are_told_of_another_accounts_bucket(store: Store) -> None:
    other = "999999999999"
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/native?owner={other}", transport="native")
    address = publish(options, store.session)
    said = publishing.announce_variable(options, store.session, address)
    assert said == {"SMSSH_ANNOUNCE": f"s3://{BUCKET}/native?owner={other}"}


def test_without_sts_the_address_may_say_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from smssh_plugin.submit import account

    monkeypatch.setattr(account, "_known", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    session = boto3.Session(region_name=REGION)
    with pytest.raises(SmsshError, match="cannot find out your AWS account, which must own") as caught:
        publish(SSHOptions(bundle_prefix=f"s3://{BUCKET}/no-sts"), session)
    assert "?owner=ACCOUNT" in (caught.value.hint or "")
    assert publish(SSHOptions(bundle_prefix=f"s3://{BUCKET}/no-sts?owner={ACCOUNT}"), session)


# -------------------------------------------------------------------------------- an account that is new, or strict


def test_a_bucket_that_is_not_there_is_said_in_a_few_lines(store: Store) -> None:
    """The default bucket of plain boto3, which nobody has made yet."""
    place = Destination(store.client, "sagemaker-nowhere-123456789012", "smssh/bundles", ACCOUNT)
    with pytest.raises(SmsshError) as caught:
        upload(build(SSHOptions(), [KEY]), place)
    assert caught.value.message == "there is no bucket sagemaker-nowhere-123456789012 to store the bundle in"
    assert "aws s3 mb s3://sagemaker-nowhere-123456789012" in (caught.value.hint or "")
    assert "PutObject" not in str(caught.value)
    # Without botocore's own traceback before it.
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("AES256", {"x-amz-server-side-encryption": "AES256"}),
        ("aws:kms", {"x-amz-server-side-encryption": "aws:kms"}),
        (
            "alias/team",
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "alias/team",
            },
        ),
    ],
)
def test_a_bucket_whose_policy_demands_encryption(store: Store, how: str, expected: dict[str, str]) -> None:
    sent: list[dict[str, str]] = []

    def demand(params: Any, **_: Any) -> None:
        found = {name.lower(): value for name, value in params["headers"].items()}
        sent.append({name: value for name, value in found.items() if "server-side" in name})

    store.session.events.register("before-call.s3.PutObject", demand)
    named = SSHOptions(bundle_prefix=f"s3://{BUCKET}/encrypted", s3_encryption=how, owner=how)
    publish(named, store.session)
    assert sent
    assert all(each == expected for each in sent)


@pytest.mark.parametrize("how", ["", "kms", "aws:kms:dsse", "key with spaces", 5])
def test_what_is_not_an_encryption(how: Any) -> None:
    with pytest.raises(
        SmsshError, match=r"s3_encryption is (empty|not usable: .* is not AES256, aws:kms or a key)"
    ):
        SSHOptions(s3_encryption=how)
