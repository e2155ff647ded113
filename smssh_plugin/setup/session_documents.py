"""The session document of one's own in an account, in one region."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..errors import SmsshError
from . import marks
from .change import LEAVE, MAKE, REMOVE, Change, compared

if TYPE_CHECKING:
    from .account import Account

__all__ = ["SessionDocument"]


class SessionDocument:
    """One document.

    Args:
        account: the account.
        setup: the name of the setup that it belongs to.
        name: its name.
        content: what it is to be; {} for an undo.
        replace: whether it is written over what others have changed.
    """

    def __init__(
        self,
        account: Account,
        setup: str,
        name: str,
        content: dict[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        self.what = f"session document {name}"
        self._account = account
        self._setup = setup
        self._name = name
        self._wanted = content or {}
        self._replace = replace
        self._tags: dict[str, str] = {}
        self._current: Any = None

    def _look(self) -> bool:
        found = self._account.find("ssm", "get_document", Name=self._name)
        if found is None:
            self._tags, self._current = {}, None
            return False
        answer = self._account.call(
            "ssm", "list_tags_for_resource", ResourceType="Document", ResourceId=self._name
        )
        self._tags = marks.tags_of(answer, "TagList")
        self._current = _content(found)
        return True

    def wanted(self) -> Change:
        """See `Resource`."""
        if not self._look():
            return Change(MAKE, self.what)
        stranger = marks.owner(self._tags, self._setup)
        changed = not marks.written(self._tags, self._current)
        return compared(self.what, self._current, self._wanted, stranger, changed, replace=self._replace)

    def make(self) -> None:
        """See `Resource`."""
        content = json.dumps(self._wanted)
        if self._current is None:
            tags = {**marks.MADE, marks.SETUP: self._setup, marks.CONTENT: marks.content(self._wanted)}
            self._account.call(
                "ssm",
                "create_document",
                Name=self._name,
                DocumentType="Session",
                DocumentFormat="JSON",
                Content=content,
                Tags=marks.listed(tags),
            )
            return
        value = marks.content(self._current, self._wanted)
        if self._tags.get(marks.CONTENT) != value:
            self._account.call(
                "ssm",
                "add_tags_to_resource",
                ResourceType="Document",
                ResourceId=self._name,
                Tags=marks.listed({marks.CONTENT: value}),
            )
        if self._current != self._wanted:
            version = self._version(content)
            self._account.call(
                "ssm", "update_document_default_version", Name=self._name, DocumentVersion=version
            )

    def _version(self, content: str) -> str:
        """A version with the wanted content: a new one, unless there is one already."""
        try:
            made = self._account.call(
                "ssm",
                "update_document",
                Name=self._name,
                DocumentVersion="$LATEST",
                DocumentFormat="JSON",
                Content=content,
            )
        except ServiceRefused as error:
            if error.code != "DuplicateDocumentContent":
                raise
        else:
            return str(made["DocumentDescription"]["DocumentVersion"])
        latest = self._account.call("ssm", "describe_document", Name=self._name)["Document"]["LatestVersion"]
        for number in range(int(latest), 0, -1):
            found = self._account.find("ssm", "get_document", Name=self._name, DocumentVersion=str(number))
            if found is not None and _content(found) == self._wanted:
                return str(number)
        raise SmsshError(f"the service has no version of {self._name} with the new content, and takes none")

    def removal(self) -> Change | None:
        """See `Resource`. It is left if somebody has changed it."""
        if not self._look():
            return None
        stranger = marks.owner(self._tags, self._setup)
        if stranger:
            return Change(LEAVE, self.what, stranger, ours=False)
        if not marks.written(self._tags, self._current):
            return Change(LEAVE, self.what, "somebody has changed it: delete it by hand")
        return Change(REMOVE, self.what)

    def remove(self) -> None:
        """See `Resource`."""
        self._account.call("ssm", "delete_document", Name=self._name)


def _content(answer: dict[str, Any]) -> Any:
    try:
        return json.loads(answer["Content"])
    except ValueError:  # YAML, or a text: not one of ours
        return answer["Content"]
