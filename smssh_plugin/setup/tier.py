"""The advanced-instances tier of an account in one region, and what the setting was before.

A service setting has no tags. What it was before is kept in a parameter of Parameter Store, which is written before the
setting is, so that anybody of the account can go back from any machine. Setups of one region share the setting: one
that finds it switched on by another notes the same in a parameter of its own, and the last of them goes back.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from ..aws.tier import ADVANCED, TIER
from ..errors import SmsshError
from . import marks
from .change import CHANGE, KEEP, LEAVE, MAKE, REFUSE, REMOVE, Change
from .notes import hybrid_nodes

if TYPE_CHECKING:
    from .account import Account

__all__ = ["Tier"]

_RECORDS = "/smssh/setup"
_RECORD = re.compile(rf"{_RECORDS}/([^/]+)/tier")


class Tier:
    """The setting.

    Args:
        account: the account.
        setup: the name of the setup that switches it on.
        certainly: whether an undo switches it off even though hybrid nodes are registered.
    """

    what = "service setting advanced tier"

    def __init__(self, account: Account, setup: str, *, certainly: bool = False) -> None:
        self._account = account
        self._setup = setup
        self._certainly = certainly
        self._parameter = f"{_RECORDS}/{setup}/tier"
        self._record: dict[str, Any] | None = None
        self._others: dict[str, str] = {}
        """The records of other setups, as they stand, by the names of the setups."""
        self._setting: dict[str, Any] = {}

    def _look(self) -> None:
        self._setting = self._account.call("ssm", "get_service_setting", SettingId=TIER)["ServiceSetting"]
        found = self._account.find("ssm", "get_parameter", Name=self._parameter)
        self._record = None if found is None else _read(str(found["Parameter"]["Value"]), self._parameter)
        self._others = self._records()
        self._others.pop(self._setup, None)

    def _records(self) -> dict[str, str]:
        arguments: dict[str, Any] = {"Path": _RECORDS, "Recursive": True}
        found = {}
        while True:
            answer = self._account.call("ssm", "get_parameters_by_path", **arguments)
            for each in answer.get("Parameters") or ():
                name = _RECORD.fullmatch(str(each["Name"]))
                if name is not None:
                    found[name[1]] = str(each["Value"])
            if not answer.get("NextToken"):
                return found
            arguments["NextToken"] = answer["NextToken"]

    def _shared(self) -> tuple[str, dict[str, Any]] | None:
        """The setup that has switched on what is on now, and its record; None if it was nobody's setup.

        Raises:
            SmsshError: there are records of others, none of which can be read.
        """
        unread: SmsshError | None = None
        for name, text in sorted(self._others.items()):
            try:
                record = _read(text, f"{_RECORDS}/{name}/tier")
            except SmsshError as error:
                unread = error
                continue
            unread = None
            if not self._user or record.get("by") in (None, self._user):
                return name, record
        if unread is not None:
            raise unread
        return None

    @property
    def _on(self) -> bool:
        """Whether it is on, or on the way: the change takes some minutes."""
        pending = self._record is not None and self._setting.get("Status") == "PendingUpdate"
        return pending or self._setting.get("SettingValue") == ADVANCED

    @property
    def _user(self) -> str:
        """Who changed the setting last, as the service says it; "" if it does not."""
        return str(self._setting.get("LastModifiedUser") or "")

    def wanted(self) -> Change:
        """See `Resource`."""
        self._look()
        if self._record is None and self._setting.get("Status") == "PendingUpdate":
            return Change(REFUSE, self.what, "somebody is changing it: run this again in some minutes")
        if self._on and self._record is None:
            shared = self._shared()
            if shared is None:
                return Change(KEEP, self.what, "it is on already", ours=False)
            why = f"the setup {shared[0]!r} has switched the tier on, and an undo of that must not end it for this one"
            return Change(MAKE, f"parameter {self._parameter}", why)
        if not self._on:
            return Change(MAKE, self.what, f"from {self._setting.get('SettingValue')}")
        if self._record is not None and self._user and "by" not in self._record:
            return Change(CHANGE, self.what, "who switched it on is not noted yet")
        return Change(KEEP, self.what)

    def make(self) -> None:
        """See `Resource`. The value of before is noted once."""
        new = self._record is None
        if self._record is None:
            shared = self._shared() if self._on else None
            self._record = {
                "before": str(self._setting.get("SettingValue") or "standard"),
                "status": str(self._setting.get("Status") or ""),
            }
            if shared is not None:
                self._record = {**shared[1], **({"by": self._user} if self._user else {})}
            tags = {**marks.MADE, marks.SETUP: self._setup}
            self._account.call(
                "ssm",
                "put_parameter",
                Name=self._parameter,
                Description="What smssh setup --undo goes back to.",
                Type="String",
                Value=json.dumps(self._record),
                Tags=marks.listed(tags),
            )
        if not self._on:
            try:
                self._account.call("ssm", "update_service_setting", SettingId=TIER, SettingValue=ADVANCED)
            except SmsshError as error:
                # Refused for certain: what somebody else switches on now is not for an undo.
                if new and error.reference == "access-denied":
                    with contextlib.suppress(SmsshError):
                        self._account.call("ssm", "delete_parameter", Name=self._parameter)
                raise
            self._setting = self._account.call("ssm", "get_service_setting", SettingId=TIER)["ServiceSetting"]
        if self._user and self._record.get("by") != self._user:
            self._record["by"] = self._user
            self._account.call(
                "ssm",
                "put_parameter",
                Name=self._parameter,
                Type="String",
                Value=json.dumps(self._record),
                Overwrite=True,
            )

    def removal(self) -> Change | None:
        """See `Resource`. Going back ends Session Manager on all hybrid nodes, so it is left while there are some."""
        self._look()
        if self._record is None:
            return None
        before = self._record["before"]
        if not self._on:
            return Change(REMOVE, f"parameter {self._parameter}", f"the tier is {before} again already")
        if self._others:
            *most, last = (repr(each) for each in sorted(self._others))
            users = f"setups {', '.join(most)} and {last} use" if most else f"setup {last} uses"
            why = f"the tier stays on: the {users} it; the undo of the last one switches it off"
            return Change(REMOVE, f"parameter {self._parameter}", why)
        by = self._record.get("by")
        if by and self._user and by != self._user:
            return Change(LEAVE, self.what, f"{self._user} has set it since")
        if self._certainly:
            return Change(REMOVE, self.what, f"back to {before}; it ends Session Manager on {self._nodes()}")
        nodes = self._nodes()
        if nodes:
            name = "" if self._setup == "smssh" else f" --name {self._setup}"
            why = (
                f"going back ends Session Manager on {nodes}: `smssh setup --undo --part tier{name}` does it"
            )
            return Change(LEAVE, self.what, why)
        return Change(REMOVE, self.what, f"back to {before}")

    def _nodes(self) -> str:
        """The hybrid nodes that need it, in words; "" if no node does."""
        try:
            every, others = hybrid_nodes(self._account.aws)
        except SmsshError as error:
            return f"an unknown number of hybrid nodes ({error.message})"
        if not every:
            return "" if not self._certainly else "no hybrid node now"
        count = "one hybrid node" if len(every) == 1 else f"{len(every)} hybrid nodes"
        return f"{count}, {len(others)} not of smssh"

    def remove(self) -> None:
        """See `Resource`."""
        assert self._record is not None
        if self._on and not self._others:
            self._go_back(self._record)
        self._account.call("ssm", "delete_parameter", Name=self._parameter)

    def _go_back(self, record: dict[str, Any]) -> None:
        if record["status"] == "Default":
            self._account.call("ssm", "reset_service_setting", SettingId=TIER)
        else:
            self._account.call("ssm", "update_service_setting", SettingId=TIER, SettingValue=record["before"])


def _read(text: str, parameter: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("status"), str)
        or found.get("before") not in ("standard", ADVANCED)
    ):
        raise SmsshError(
            f"the parameter {parameter} does not say what the tier was before",
            hint="remove it if smssh may forget that",
            reference="bad-record",
        )
    return found
