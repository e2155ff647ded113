"""The session documents: those that AWS has for everybody, and those of the account.

`SSM-SessionManagerRunShell` is special: what stands in its `inputs` are the account's preferences (time-outs,
the KMS key of shells, the user that they run as), which hold for every session whose own document does not say
otherwise. Here it is there from the start; on AWS it appears when the preferences are first saved.

Facts: the Systems Manager user guide, "Session document schema" and "Update Session Manager preferences
(command line)"; the public documents of the service.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ..service_error import ServiceError

__all__ = ["PREFERENCES", "Document", "Documents", "seconds_of"]

PREFERENCES = "SSM-SessionManagerRunShell"
"""The document of a session that names none, and of the account's preferences."""
_TYPES = ("Standard_Stream", "Port", "InteractiveCommands", "NonInteractiveCommands")
_NAME = re.compile(r"[a-zA-Z0-9_\-.]{3,128}")
_RESERVED = ("aws-", "amazon", "amzn")
_PORT = r"^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
_LOCAL_PORT = _PORT.replace("^(", "^(0|")
_HOST = r"^[^,$^&\(\)!;'\"<>`{}\[\]|#=]{3,}$"
_CONTENT_MAX = 64 * 1024


@dataclass
class Document:
    """A session document."""

    name: str
    content: dict[str, Any]
    owner: str = "Amazon"
    version: int = 1
    created: float = 0.0
    text: str = ""
    """The content as it was given."""
    tags: dict[str, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    """The texts of all versions, the first one first; `version` is the default one."""

    def __post_init__(self) -> None:
        self.versions = [self.text]

    def describe(self, account: str) -> dict[str, Any]:
        """The DocumentDescription of the API."""
        return {
            "Name": self.name,
            "Owner": self.owner if self.owner == "Amazon" else account,
            "CreatedDate": self.created,
            "Status": "Active",
            "DocumentVersion": str(self.version),
            "LatestVersion": str(len(self.versions)),
            "DefaultVersion": str(self.version),
            "Description": str(self.content.get("description", "")),
            "PlatformTypes": ["Windows", "Linux", "MacOS"],
            "DocumentType": "Session",
            "SchemaVersion": "1.0",
            "DocumentFormat": "JSON",
            "Hash": sha256(self.text.encode()).hexdigest(),
            "HashType": "Sha256",
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
        }


class Documents:
    """The documents of one account.

    Args:
        account: the account's id.
    """

    def __init__(self, account: str) -> None:
        self._account = account
        self._documents = {
            name: Document(name, content, text=json.dumps(content)) for name, content in _public().items()
        }

    def get(self, name: str) -> Document:
        """A document.

        Raises:
            ServiceError: no document has that name.
        """
        found = self._documents.get(name)
        if found is None:
            raise ServiceError("InvalidDocument", f"Document with name {name} does not exist.")
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a session document; names of other documents are not known here."""
        return name in self._documents

    def content_of(self, name: str) -> dict[str, Any]:
        """A document as an agent gets it: with the account's preferences where it has none of its own."""
        content = self.get(name).content
        preferences = self._documents[PREFERENCES].content.get("inputs") or {}
        return {**content, "inputs": {**preferences, **(content.get("inputs") or {})}}

    def parameters_of(self, name: str, given: dict[str, Any]) -> dict[str, str]:
        """The values of a document's parameters: StartSession takes lists, the agent wants strings.

        Raises:
            ServiceError: a parameter that the document does not have, does not allow, or needs.
        """
        rules = self.get(name).content.get("parameters") or {}
        values = {key: str(rule["default"]) for key, rule in rules.items() if "default" in rule}
        for key, value in given.items():
            if key not in rules:
                raise ServiceError("InvalidParameters", f"{name} has no parameter {key}.")
            if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], str):
                raise ServiceError("InvalidParameters", f"The parameter {key} takes a list of one string.")
            _check_value(key, value[0], rules[key])
            values[key] = value[0]
        missing = [key for key in rules if key not in values]
        if missing:
            raise ServiceError("InvalidParameters", f"{name} needs the parameter {missing[0]}.")
        return values

    # Operations.

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """CreateDocument, for documents of the type Session.

        Raises:
            ServiceError: the name is taken, or the content is not a document.
        """
        name = str(body.get("Name", ""))
        if name in self._documents:
            raise ServiceError("DocumentAlreadyExists", f"Document with same name {name} already exists")
        if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
            raise ServiceError("ValidationException", f"1 validation error detected: the name {name!r}")
        content, text = _content(body)
        tags = {str(tag.get("Key")): str(tag.get("Value", "")) for tag in body.get("Tags") or ()}
        made = Document(name, content, "account", created=time.time(), text=text, tags=tags)
        self._documents[name] = made
        return {"DocumentDescription": made.describe(self._account)}

    def update(self, body: dict[str, Any]) -> dict[str, Any]:
        """UpdateDocument. The new version is the default one at once in the preferences only.

        Raises:
            ServiceError: no such document, not the account's, or the content is not a document.
        """
        document = self._own(body)
        content, text = _content(body)
        if content == json.loads(document.versions[-1]):
            raise ServiceError(
                "DuplicateDocumentContent",
                "The content of the association document matches another document. Change the content of the "
                "document and try again.",
            )
        document.versions.append(text)
        latest = str(len(document.versions))
        if document.name == PREFERENCES:
            self._use(document, latest)
        return {"DocumentDescription": {**document.describe(self._account), "DocumentVersion": latest}}

    def set_default(self, body: dict[str, Any]) -> dict[str, Any]:
        """UpdateDocumentDefaultVersion.

        Raises:
            ServiceError: no such document or version, or not the account's.
        """
        document = self._own(body)
        self._use(document, str(body.get("DocumentVersion", "")))
        return {"Description": {"Name": document.name, "DefaultVersion": str(document.version)}}

    def _use(self, document: Document, version: str) -> None:
        """Make a version the default one."""
        document.text = _version_of(document, version)
        document.content = json.loads(document.text)
        document.version = int(version)

    def add_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """AddTagsToResource for a document."""
        tags = {str(tag.get("Key")): str(tag.get("Value", "")) for tag in body.get("Tags") or ()}
        self.get(str(body.get("ResourceId", ""))).tags.update(tags)
        return {}

    def remove_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """RemoveTagsFromResource for a document."""
        for key in body.get("TagKeys") or ():
            self.get(str(body.get("ResourceId", ""))).tags.pop(key, None)
        return {}

    def list_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource for a document."""
        tags = self.get(str(body.get("ResourceId", ""))).tags
        return {"TagList": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        """DeleteDocument; the preferences go back to what they are without any.

        Raises:
            ServiceError: no such document, or not the account's.
        """
        document = self._own(body)
        if document.name == PREFERENCES:
            content = _public()[PREFERENCES]
            self._documents[PREFERENCES] = Document(PREFERENCES, content, text=json.dumps(content))
        else:
            del self._documents[document.name]
        return {}

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """GetDocument.

        Raises:
            ServiceError: no such document or version.
        """
        document = self.get(str(body.get("Name", "")))
        version = str(body.get("DocumentVersion") or document.version)
        return {
            "Name": document.name,
            "CreatedDate": document.created,
            "DocumentVersion": version,
            "Status": "Active",
            "Content": _version_of(document, version),
            "DocumentType": "Session",
            "DocumentFormat": "JSON",
        }

    def describe(self, body: dict[str, Any]) -> dict[str, Any]:
        """DescribeDocument.

        Raises:
            ServiceError: no such document.
        """
        return {"Document": self.get(str(body.get("Name", ""))).describe(self._account)}

    def _own(self, body: dict[str, Any]) -> Document:
        document = self.get(str(body.get("Name", "")))
        if document.owner == "Amazon" and document.name != PREFERENCES:
            raise ServiceError("AccessDeniedException", f"{document.name} is a document of AWS.")
        return document


def seconds_of(content: dict[str, Any], name: str, most: int) -> float | None:
    """A time-out of a document's inputs, in seconds; None where it says none.

    Args:
        content: the document's content.
        name: idleSessionTimeout or maxSessionDuration, which are in minutes.
        most: the most minutes that the service allows.
    """
    text = str((content.get("inputs") or {}).get(name) or "")
    return 60.0 * int(text) if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= most else None


def _version_of(document: Document, version: str) -> str:
    """The text of a version.

    Raises:
        ServiceError: no version has that number.
    """
    if not re.fullmatch("[0-9]{1,9}", version) or not 1 <= int(version) <= len(document.versions):
        raise ServiceError("InvalidDocumentVersion", "The document version is not valid or does not exist.")
    return document.versions[int(version) - 1]


def _content(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    text = str(body.get("Content", ""))
    if len(text) > _CONTENT_MAX:
        raise ServiceError("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ServiceError("InvalidDocumentContent", "The local emulator reads documents in JSON only.")
    if content.get("schemaVersion") != "1.0" or content.get("sessionType") not in _TYPES:
        raise ServiceError(
            "InvalidDocumentContent",
            f"A session document has schemaVersion 1.0 and a sessionType of {', '.join(_TYPES)}.",
        )
    for part in ("inputs", "parameters", "properties"):
        if not isinstance(content.get(part) or {}, dict):
            raise ServiceError("InvalidDocumentContent", f"{part} is not an object.")
    for key, rule in (content.get("parameters") or {}).items():
        if not isinstance(rule, dict) or rule.get("type") != "String":
            raise ServiceError("InvalidDocumentContent", f"The parameter {key} is not of the type String.")
        try:
            re.compile(str(rule.get("allowedPattern", "")))
        except re.error as error:
            raise ServiceError(
                "InvalidDocumentContent", f"The allowedPattern of {key} is not a regular expression: {error}"
            ) from None
    return content, text


def _check_value(key: str, value: str, rule: dict[str, Any]) -> None:
    pattern, values = rule.get("allowedPattern"), rule.get("allowedValues")
    if pattern and not re.fullmatch(pattern, value):
        raise ServiceError(
            "InvalidParameters", f"Parameter {key} has value {value!r} not matching {pattern}."
        )
    if values and value not in values:
        raise ServiceError("InvalidParameters", f"Parameter {key} has value {value!r} not in {values}.")


def _parameter(default: str, description: str, pattern: str) -> dict[str, Any]:
    return {"type": "String", "description": description, "allowedPattern": pattern, "default": default}


def _public() -> dict[str, dict[str, Any]]:
    """The documents of AWS, by name."""
    port = _parameter("80", "(Optional) Port number of the server on the instance", _PORT)
    local = _parameter("0", "(Optional) Port number on local machine to forward traffic to", _LOCAL_PORT)
    host = _parameter("localhost", "(Optional) Hostname or IP address of the destination server", _HOST)
    forwarding = {
        "portNumber": "{{ portNumber }}",
        "type": "LocalPortForwarding",
        "localPortNumber": "{{ localPortNumber }}",
    }
    command = {"type": "String", "description": "(Required) The command to run on the instance"}
    commands = {"commands": "{{ command }}", "runAsElevated": False}
    systems = dict.fromkeys(("windows", "macos", "linux"), commands)
    return {
        "AWS-StartSSHSession": _document(
            "Document to start SSH session over Session Manager",
            "Port",
            parameters={
                "portNumber": _parameter("22", "(Optional) Port number of SSH server on the instance", _PORT)
            },
            properties={"portNumber": "{{ portNumber }}"},
        ),
        "AWS-StartPortForwardingSession": _document(
            "Document to start port forwarding session over Session Manager",
            "Port",
            parameters={"portNumber": port, "localPortNumber": local},
            properties=forwarding,
        ),
        "AWS-StartPortForwardingSessionToRemoteHost": _document(
            "Document to start port forwarding session over Session Manager to remote host",
            "Port",
            parameters={"portNumber": port, "localPortNumber": local, "host": host},
            properties={**forwarding, "host": "{{ host }}"},
        ),
        PREFERENCES: _document(
            "Document to hold regional settings for Session Manager",
            "Standard_Stream",
            inputs={"kmsKeyId": "", "runAsEnabled": False, "runAsDefaultUser": "", "idleSessionTimeout": ""},
        ),
        "AWS-StartInteractiveCommand": _document(
            "Document to run single interactive command on an instance",
            "InteractiveCommands",
            parameters={"command": command},
            properties=systems,
        ),
        "AWS-StartNonInteractiveCommand": _document(
            "Document to run single non-interactive command on an instance",
            "NonInteractiveCommands",
            parameters={"command": command},
            properties=systems,
        ),
    }


def _document(description: str, kind: str, **parts: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": "1.0", "description": description, "sessionType": kind, **parts}
