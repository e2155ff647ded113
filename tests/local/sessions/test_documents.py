"""Session documents: AWS's own, the account's, and its preferences."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from smssh_plugin.local.service_error import ServiceError
from smssh_plugin.local.sessions.documents import PREFERENCES, Documents, seconds_of
from tests.local.service_harness import Service, running

ACCOUNT = "123456789012"


@pytest.fixture
def service() -> Any:
    with running() as made:
        yield made


def document(**more: Any) -> dict[str, Any]:
    return {"schemaVersion": "1.0", "sessionType": "Standard_Stream", **more}


def create(ssm: Any, name: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = ssm.create_document(
        Name=name, Content=json.dumps(content), DocumentType="Session", **more
    )
    return answer["DocumentDescription"]


def test_the_accounts_documents_live_beside_aws_own_and_motos(service: Service) -> None:
    ssm = service.client("ssm")
    made = create(ssm, "Mine", document(description="d"), Tags=[{"Key": "a", "Value": "b"}])
    assert (made["DocumentType"], made["Description"], made["Owner"]) == ("Session", "d", ACCOUNT)
    assert json.loads(ssm.get_document(Name="Mine")["Content"]) == document(description="d")
    assert ssm.describe_document(Name="AWS-StartSSHSession")["Document"]["Owner"] == "Amazon"
    command = {"schemaVersion": "2.2", "mainSteps": []}
    ssm.create_document(Name="Moto", Content=json.dumps(command), DocumentType="Command")
    assert ssm.describe_document(Name="Moto")["Document"]["DocumentType"] == "Command"
    ssm.delete_document(Name="Mine")
    with pytest.raises(ClientError):
        ssm.get_document(Name="Mine")


def test_a_document_has_versions_and_tags(service: Service) -> None:
    """A new version is the default one when it is made so; in the preferences at once."""
    ssm = service.client("ssm")
    create(ssm, "Mine", document(description="1"), Tags=[{"Key": "a", "Value": "b"}])
    new = {"Name": "Mine", "Content": json.dumps(document(description="2")), "DocumentVersion": "$LATEST"}
    assert ssm.update_document(**new)["DocumentDescription"]["DocumentVersion"] == "2"
    with pytest.raises(ClientError, match="DuplicateDocumentContent"):
        ssm.update_document(**new)
    assert json.loads(ssm.get_document(Name="Mine")["Content"])["description"] == "1"
    assert json.loads(ssm.get_document(Name="Mine", DocumentVersion="2")["Content"])["description"] == "2"
    for version in ("3", "9" * 5000):
        with pytest.raises(ClientError, match="InvalidDocumentVersion"):
            ssm.update_document_default_version(Name="Mine", DocumentVersion=version)
    ssm.update_document_default_version(Name="Mine", DocumentVersion="2")
    assert json.loads(ssm.get_document(Name="Mine")["Content"])["description"] == "2"
    told = ssm.describe_document(Name="Mine")["Document"]
    assert (told["DefaultVersion"], told["LatestVersion"]) == ("2", "2")
    resource = {"ResourceType": "Document", "ResourceId": "Mine"}
    ssm.add_tags_to_resource(**resource, Tags=[{"Key": "c", "Value": "d"}])
    ssm.remove_tags_from_resource(**resource, TagKeys=["a"])
    assert ssm.list_tags_for_resource(**resource)["TagList"] == [{"Key": "c", "Value": "d"}]


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("create", ("AWS-StartSSHSession", document()), "DocumentAlreadyExists"),
        ("create", ("AWS-Own", document()), "ValidationException"),
        ("create", ("x y", document()), "ValidationException"),
        ("create", ("Mine", {"schemaVersion": "2.2", "sessionType": "Port"}), "InvalidDocumentContent"),
        ("create", ("Mine", document(sessionType="Telepathy")), "InvalidDocumentContent"),
        ("create", ("Mine", document(inputs=[1])), "InvalidDocumentContent"),
        ("create", ("Mine", document(parameters={"p": {"type": "StringList"}})), "InvalidDocumentContent"),
        (
            "create",
            ("Mine", document(parameters={"p": {"type": "String", "allowedPattern": "("}})),
            "InvalidDocumentContent",
        ),
        ("create", ("Mine", document(description="x" * 70_000)), "MaxDocumentSizeExceeded"),
        ("update", ("Nobodys", document()), "InvalidDocument"),
        ("update", ("AWS-StartSSHSession", document()), "AccessDeniedException"),
        ("delete", ("AWS-StartSSHSession", None), "AccessDeniedException"),
    ],
)
def test_what_aws_would_refuse_is_refused(operation: str, arguments: tuple[str, Any], code: str) -> None:
    name, content = arguments
    with pytest.raises(ServiceError) as caught:
        getattr(Documents(ACCOUNT), operation)({"Name": name, "Content": json.dumps(content)})
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "no json", "[]", "[" * 10_000])
def test_content_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ServiceError, match="InvalidDocumentContent"):
        Documents(ACCOUNT).create({"Name": "Mine", "Content": text})


def test_preferences_hold_for_documents_that_do_not_say_otherwise() -> None:
    documents = Documents(ACCOUNT)
    inputs = {"kmsKeyId": "key", "idleSessionTimeout": "5"}
    documents.update({"Name": PREFERENCES, "Content": json.dumps(document(inputs=inputs))})
    with pytest.raises(ServiceError, match="DuplicateDocumentContent"):
        documents.update({"Name": PREFERENCES, "Content": json.dumps(document(inputs=inputs))})
    assert documents.describe({"Name": PREFERENCES})["Document"]["DocumentVersion"] == "2"
    documents.create({"Name": "Mine", "Content": json.dumps(document(inputs={"kmsKeyId": ""}))})
    assert documents.content_of("AWS-StartSSHSession")["inputs"] == inputs
    assert documents.content_of("Mine")["inputs"] == {"kmsKeyId": "", "idleSessionTimeout": "5"}
    documents.delete({"Name": PREFERENCES})
    assert documents.content_of("Mine")["inputs"]["idleSessionTimeout"] == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("5", 300.0),
        ("60", 3600.0),
        ("61", None),
        ("0", None),
        ("five", None),
        ("\u0665", None),
        ("9" * 5000, None),
    ],
)
def test_a_time_out_is_minutes_within_the_services_limits(text: str, seconds: float | None) -> None:
    assert seconds_of({"inputs": {"idleSessionTimeout": text}}, "idleSessionTimeout", 60) == seconds
    assert seconds_of({}, "idleSessionTimeout", 60) is None


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("AWS-StartInteractiveCommand", {}, "InvalidParameters"),
        ("AWS-StartPortForwardingSessionToRemoteHost", {"host": ["a;b"]}, "InvalidParameters"),
        ("AWS-StartPortForwardingSession", {"localPortNumber": ["70000"]}, "InvalidParameters"),
        ("Chosen", {"size": ["medium"]}, "InvalidParameters"),
    ],
)
def test_parameters_are_held_to_their_documents_rules(name: str, given: dict[str, Any], code: str) -> None:
    documents = Documents(ACCOUNT)
    rules = {"size": {"type": "String", "allowedValues": ["small", "large"], "default": "small"}}
    documents.create({"Name": "Chosen", "Content": json.dumps(document(parameters=rules))})
    with pytest.raises(ServiceError) as caught:
        documents.parameters_of(name, given)
    assert caught.value.code == code
    assert documents.parameters_of("Chosen", {"size": ["large"]}) == {"size": "large"}
    assert documents.parameters_of("AWS-StartPortForwardingSessionToRemoteHost", {}) == {
        "portNumber": "80",
        "localPortNumber": "0",
        "host": "localhost",
    }


def test_a_session_takes_its_time_outs_from_the_preferences(service: Service) -> None:
    ssm = service.client("ssm")
    inputs = {"idleSessionTimeout": "7", "maxSessionDuration": "90"}
    ssm.update_document(Name=PREFERENCES, Content=json.dumps(document(inputs=inputs)))
    sessions = service.sessions
    with pytest.raises(ClientError, match="TargetNotConnected"):
        ssm.start_session(Target="sagemaker-training-job:j_algo-1")
    content = sessions.documents.content_of(PREFERENCES)
    assert seconds_of(content, "idleSessionTimeout", 60) == 420.0
    assert seconds_of(content, "maxSessionDuration", 1440) == 5400.0
