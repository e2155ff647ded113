"""IAM in the local emulator: each request of a principal that has policies is decided before it is answered.

Who started the emulator is the account's administrator, and not asked. Calls that SageMaker makes for a pipeline are
not decided either: `smssh setup` has no policy for the roles of pipelines.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ..keyring import CALLER, Key
from ..service_error import ServiceError
from . import issued, other_requests, s3_requests
from .account import ACCOUNT, CLIENTS, REGION, Account, Principal
from .evaluator import Context, Decision, Question, decide
from .sagemaker_requests import SageMakerRequests
from .session_requests import Sessions, channel_action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..keyring import Keyring
    from ..sagemaker.resources import Store
    from ..sessions.session_service import SessionService

__all__ = ["Enforcement", "Entry"]

_ENTRIES_MAX = 20_000
_CHANNEL_RESOURCE = f"arn:aws:ssm:{REGION}:{ACCOUNT}:*"


@dataclass(frozen=True)
class Entry:
    """A decision that was made.

    Attributes:
        number: counts them.
        principal: who asked.
        question: what.
        decision: the answer.
        fatal: whether a denial refuses the request; False for a look at what else somebody may do.
    """

    number: int
    principal: Principal
    question: Question
    decision: Decision
    fatal: bool = True

    def to_json(self) -> dict[str, Any]:
        """As the control API shows it."""
        statement = self.decision.statement
        return {
            "number": self.number,
            "principal": self.principal.name,
            "arn": self.principal.arn,
            "action": self.question.action,
            "resource": self.question.resource,
            "keys": self.question.context.to_json(),
            "fatal": self.fatal,
            "allowed": self.decision.allowed,
            "layer": self.decision.layer,
            "statement": None if statement is None else statement.label,
        }


class Enforcement:
    """Decides requests.

    Args:
        account: the policies.
        keyring: where the credentials of principals are issued.
        sessions: knows nodes and sessions.
        store: knows the tags of SageMaker's resources.
    """

    def __init__(self, account: Account, keyring: Keyring, sessions: SessionService, store: Store) -> None:
        self._account = account
        self._service = sessions
        self._sessions = Sessions(self._node_tags, self._owner)
        self._sagemaker = SageMakerRequests(lambda arn: store.tags.get(arn, {}))
        self.entries: deque[Entry] = deque(maxlen=_ENTRIES_MAX)
        """What was decided, oldest first."""
        self.without: frozenset[str] = frozenset()
        """Labels of statements that do not count now."""
        self._numbers = itertools.count(1)  # jobs are decided in threads of their own
        self.keys: dict[str, Key] = {name: keyring.issue(f"client {name}") for name in CLIENTS}
        """The credentials of those who use clients."""
        sessions.nodes.may_have_role = lambda role: (
            account.passes_to_nodes(role) or issued.passes_to_nodes(role)
        )
        for name, content in account.session_documents.items():
            sessions.documents.create(
                {"Name": name, "DocumentType": "Session", "Content": json.dumps(content)}
            )

    def principal(self, key: Key | None) -> Principal | None:
        """Whose a key is; None for the administrator, and for requests without a signature."""
        if key is None or key.owner == CALLER:
            return None
        kind, _, name = key.owner.partition(" ")
        if kind == "client":
            return self._account.client(name)
        if kind == "job":
            return self._job(key.role)
        if kind == "node":
            return self._node(name)
        if kind == "function":
            return self._account.function(name)
        return issued.principal(key, self._account.guardrails) or self._account.unknown(
            name.rpartition("/")[2]
        )

    def _job(self, role: str) -> Principal:
        """A job, by the ARN of its role."""
        name = role.rpartition("/")[2]
        made = issued.service_principal("job", name, "SageMaker", self._account.guardrails)
        return made or self._account.job(role)

    def _node(self, name: str) -> Principal:
        """A managed node, by its id."""
        node = self._service.nodes.nodes.get(name)
        role = "" if node is None else node.activation.role
        made = issued.service_principal("node", role.rpartition("/")[2], name, self._account.guardrails)
        return made or self._account.node(role, name)

    def ssm(self, key: Key | None, operation: str, members: Mapping[str, Any]) -> None:
        """Decide a call of SSM.

        Raises:
            ServiceError: it is denied.
        """
        self._decide(key, lambda: self._sessions.asked(operation, members))

    def sagemaker(self, key: Key | None, operation: str, members: Mapping[str, Any]) -> None:
        """Decide a call of SageMaker.

        Raises:
            ServiceError: it is denied.
        """
        self._decide(key, lambda: self._sagemaker.asked(operation, members))

    def started(self, key: Key | None, session: str) -> None:
        """Write down whose a session is."""
        principal = self.principal(key)
        found = self._service.sessions.get(session)
        if principal is not None and found is not None:
            found.userid = principal.userid

    def channel(self, key: Key | None, method: str, path: str) -> None:
        """Decide a websocket, or the call before it; other paths pass.

        Raises:
            ServiceError: it is denied.
        """
        action = channel_action(method, path)
        if action is not None:
            self._decide(key, lambda: [(action, _CHANNEL_RESOURCE, {})])

    def s3(
        self, key: Key | None, method: str, host: str, target: str, copied: str | None, body: bytes
    ) -> None:
        """Decide a request of S3; see `s3_requests.of_request`.

        Raises:
            ServiceError: it is denied.
        """
        self._decide(
            key, lambda: s3_requests.of_request(method, host, target, copied, body), code="AccessDenied"
        )

    def may_know_that_it_is_missing(self, key: Key | None, method: str, host: str, target: str) -> bool:
        """Whether S3 says of an object that it is not there: only to those who may list its bucket."""
        principal = self.principal(key)
        if principal is None or method not in ("GET", "HEAD"):
            return True
        try:
            action, arn, keys = s3_requests.of_request(method, host, target, None, b"")[0]
        except ValueError:
            return True
        if not action.startswith("s3:GetObject"):
            return True
        question = self._question(principal, "s3:ListBucket", arn.partition("/")[0], keys)
        return self._note(principal, question, fatal=False).allowed

    def other(self, key: Key | None, service: str, target: str, body: bytes, *, form: bool) -> None:
        """Decide a request of any other service.

        Raises:
            ServiceError: it is denied.
        """
        principal = self.principal(key)
        if principal is None:
            return
        action = other_requests.action_of(service, target, body, form=form)
        code = "AccessDeniedException" if target else "AccessDenied"
        if action is None:
            text = (
                f"smssh local does not know which action of IAM this request of {service} is, and denies it."
            )
            raise ServiceError(code, text, _status(code))
        if action in other_requests.OPEN:
            return
        if service == "ssm":
            self.ssm(key, action.partition(":")[2], other_requests.members(body, form=form))
            return
        self._decide(key, lambda: other_requests.asked(action, body, form=form), code=code)

    def guard_client(self, s3: Any, role: str) -> Any:
        """Have the calls of a client of S3 decided for a job: SageMaker reads and writes with the job's role.

        Args:
            s3: a boto3 client of its own.
            role: the ARN of the job's role.
        """
        principal = self._job(role)

        def check(params: Mapping[str, Any], model: Any, **_: Any) -> None:
            try:
                asked = s3_requests.of_call(model.name, params)
            except ValueError:
                raise _client_error(
                    model.name, f"smssh local does not know the action of {model.name}"
                ) from None
            for each in asked:
                question = self._question(principal, *each)
                if not (decision := self._note(principal, question)).allowed:
                    raise _client_error(model.name, _message(principal, question, decision))

        s3.meta.events.register("before-parameter-build.s3.*", check)
        return s3

    def identity(self, key: Key | None) -> dict[str, str] | None:
        """What GetCallerIdentity says; None if moto knows better."""
        principal = self.principal(key)
        if principal is None or not principal.name:
            return None
        return {"Arn": principal.arn, "UserId": principal.userid, "Account": ACCOUNT}

    def _decide(
        self,
        key: Key | None,
        asked: Callable[[], Iterable[tuple[str, str, Mapping[str, Any]]]],
        *,
        code: str = "AccessDeniedException",
    ) -> None:
        principal = self.principal(key)
        if principal is None:
            return
        try:
            wanted = list(asked())
        except ValueError as error:
            text = f"smssh local does not know which action of IAM this request is, and denies it: {error}"
            raise ServiceError(code, text, _status(code)) from None
        for each in wanted:
            question = self._question(principal, *each)
            if not (decision := self._note(principal, question)).allowed:
                raise ServiceError(code, _message(principal, question, decision), _status(code))

    def _question(
        self, principal: Principal, action: str, resource: str, keys: Mapping[str, Any]
    ) -> Question:
        now = dt.datetime.now(dt.timezone.utc)
        common = {
            "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "aws:EpochTime": str(int(time.time())),
            "aws:RequestedRegion": REGION,
            # Loopback has no TLS; on AWS every call of an SDK has.
            "aws:SecureTransport": "true",
        }
        return Question(action, resource, Context({**common, **principal.keys, **keys}))

    def _note(self, principal: Principal, question: Question, *, fatal: bool = True) -> Decision:
        rights = principal.rights.without(self.without) if self.without else principal.rights
        decision = decide(rights, question)
        self.entries.append(Entry(next(self._numbers), principal, question, decision, fatal))
        return decision

    def may_have(self, label: str) -> bool:
        """Whether somebody's rights may have a statement of this label: of the folder, or of what is made later."""
        own = [each.label for policy in self._account.policies.values() for each in policy.statements]
        policy = label.partition("/")[0]
        return label in own or not any(each.startswith(f"{policy}/") for each in own)

    def _node_tags(self, node: str) -> Mapping[str, str] | None:
        found = self._service.nodes.nodes.get(node)
        return None if found is None else found.tags

    def _owner(self, session: str) -> tuple[str, str] | None:
        found = self._service.sessions.get(session)
        return None if found is None else (found.userid, found.target)


def _message(principal: Principal, question: Question, decision: Decision) -> str:
    """AWS's text; S3 puts the resource in quotation marks."""
    resource = f'"{question.resource}"' if question.action.startswith("s3:") else question.resource
    return (
        f"User: {principal.arn} is not authorized to perform: {question.action} on resource: {resource} "
        f"{decision.because(question.action)}"
    )


def _status(code: str) -> int:
    return 403 if code == "AccessDenied" else 400


def _client_error(operation: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)
