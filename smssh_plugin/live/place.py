"""The account that a run tries things in: every call goes through here, and what it made is known here."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from ..aws import transport
from ..aws.identity_calls import IdentityClient
from ..aws.json_client import StaticKeys, error_of, json_request, parsed
from ..aws.session import CONNECT_SECONDS, READ_SECONDS, AwsSession, ServiceRefused
from ..durations import format_duration
from ..errors import ExitStatus, SmsshError
from ..setup.account import ATTEMPTS
from ..setup.marks import listed, tags_of
from .policy import Policies, document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..aws.signing import Keys
    from ..setup.account import Account
    from .names import Run
    from .wanted import Wanted

__all__ = ["PAUSE_SECONDS", "SETTLE_SECONDS", "Place"]

SETTLE_SECONDS = 60.0
"""How long IAM and Systems Manager may take until they know what was made; mostly it is some seconds."""
PAUSE_SECONDS = 3.0
"""Between two looks at that."""
_GONE_ROLE = ("NoSuchEntity",)
_GONE_ACTIVATION = ("InvalidActivation", "InvalidActivationId")
_GONE_NODE = ("InvalidInstanceId",)
_INLINE = "trials"
_SESSION_SECONDS = 900
"""The shortest that AssumeRole takes."""
_RSA = "300d06092a864886f70d0101010500"
"""The algorithm of an RSA key (RFC 8017, A.1), DER."""
_MODULUS_BYTES = 256


class Place:
    """The account, and what a run has there.

    Args:
        account: the account of the caller.
        run: the run.
        sleep: waits some seconds.
        wanted: the job that it may start; None for no job.
    """

    def __init__(
        self,
        account: Account,
        run: Run,
        sleep: Callable[[float], None] = time.sleep,
        wanted: Wanted | None = None,
    ) -> None:
        self.account = account
        self.run = run
        self.wanted = wanted
        self.policies = Policies(run, account.caller, with_job=wanted is not None)
        self.sleep = sleep
        self.roles: list[str] = []
        """The roles that are there, or were about to be made."""
        self.activations: dict[str, str] = {}
        """The activations that are there: id, code."""
        self.nodes: list[str] = []
        """The nodes that are there, the one to try things with first."""
        self.host = ""
        """The node that the container of the job has become; the job removes it, or the end of the run does."""
        self.pending = False
        """Whether something was asked for, and no answer has come: it may be there."""
        self.ends = False
        """Whether things are being removed, which takes as long as it takes."""
        self._clients = {each: IdentityClient(account.aws, each, ATTEMPTS) for each in ("s3", "sts")}
        self._external_id = secrets.token_hex(16)

    @property
    def region(self) -> str:
        """The region."""
        return self.account.aws.region

    def call(
        self, service: str, operation: str, *, aws: AwsSession | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Make one call; its errors are those of `AwsSession.call`.

        Args:
            service: iam, sts, s3, ssm, sagemaker or logs.
            operation: as `create_role`.
            aws: whose call it is; by default the caller's.
            arguments: of the call.

        Raises:
            SmsshError: TIMEOUT: the run has taken too long.
        """
        if not self.ends and time.time() > self.run.until:
            raise SmsshError(
                f"the run took longer than {format_duration(self.run.seconds)}",
                hint="run it again: what was made is removed",
                reference="live-too-long",
                status=ExitStatus.TIMEOUT,
            )
        if operation == "register_managed_instance":
            return self._register(arguments)
        if service in self._clients:
            return self._clients[service].call(operation, **arguments)
        if aws is not None:
            return aws.call(service, operation, **arguments)
        return self.account.call(service, operation, **arguments)

    # ------------------------------------------------------------------------------------------- what is made

    def create_role(
        self, role: str, trust: Mapping[str, Any], policy: Mapping[str, Any] | None = None, path: str = "/"
    ) -> None:
        """Make a role of the run.

        Args:
            role: `node`, `test`, `job` or `path`.
            trust: its trust policy.
            policy: its inline policy.
            path: its path.
        """
        name = self.run.roles[role]
        self.roles.append(name)
        self.call(
            "iam",
            "create_role",
            RoleName=name,
            Path=path,
            Description="Made by `smssh doctor --live`, which removes it at its end.",
            AssumeRolePolicyDocument=json.dumps(trust),
            Tags=listed(self.run.tags),
        )
        if policy is not None:
            self.settled(
                "NoSuchEntity",
                "iam",
                "put_role_policy",
                RoleName=name,
                PolicyName=_INLINE,
                PolicyDocument=json.dumps(policy),
            )

    def activate(self, *, aws: AwsSession | None = None, role: str = "", tags: Any = None) -> str:
        """Make an activation for one node; answers its id.

        Args:
            aws: whose call it is; by default the caller's.
            role: of its nodes, as CreateActivation takes it; by default the run's.
            tags: of the activation.
        """
        made = self.make(
            "ssm",
            "create_activation",
            aws=aws,
            IamRole=role or self.run.roles["node"],
            DefaultInstanceName=self.run.name,
            Description=self.run.name,
            RegistrationLimit=1,
            ExpirationDate=int(time.time()) + self.run.seconds,
            **({"Tags": listed(tags)} if tags else {}),
        )
        found = str(made["ActivationId"])
        self.activations[found] = str(made["ActivationCode"])
        return found

    def end_activation(self, activation: str) -> None:
        """Remove an activation; that it is not there is no error."""
        self._gone(_GONE_ACTIVATION, "ssm", "delete_activation", ActivationId=activation)
        self.activations.pop(activation, None)

    def end_node(self, node: str) -> None:
        """Remove a managed node; that it is not there is no error."""
        self._gone(_GONE_NODE, "ssm", "deregister_managed_instance", InstanceId=node)
        if node in self.nodes:
            self.nodes.remove(node)

    def end_role(self, name: str) -> None:
        """Remove a role of a run; that it is not there is no error."""
        self._gone(_GONE_ROLE, "iam", "delete_role_policy", RoleName=name, PolicyName=_INLINE)
        self.patiently("DeleteConflict", lambda: self._gone(_GONE_ROLE, "iam", "delete_role", RoleName=name))
        if name in self.roles:
            self.roles.remove(name)

    def register(self, activation: str) -> str:
        """Make a managed node of nothing, as an agent does; answers its id.

        Its public key belongs to nobody: the modulus is random, and nobody knows its factors. So the node never comes
        online, and nobody can get the credentials of its role.
        """
        made = self.make(
            "ssm",
            "register_managed_instance",
            ActivationId=activation,
            ActivationCode=self.activations[activation],
            PublicKey=_nobodys_key(),
            PublicKeyType="Rsa",
            Fingerprint=secrets.token_hex(16),
        )
        found = str(made["InstanceId"])
        self.nodes.append(found)
        return found

    def make(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make a call that makes something which may come about although no answer does."""
        self.pending = True
        try:
            answer = self.call(service, operation, **arguments)
        except SmsshError as error:
            self.pending = error.reference == "aws-unreachable"
            raise
        self.host = ""
        """The node that the container of the job has become; the job removes it, or the end of the run does."""
        self.pending = False
        return answer

    def _register(self, body: dict[str, Any]) -> dict[str, Any]:
        """RegisterManagedInstance, which agents call without credentials: the activation's code is what counts."""
        aws = self.account.aws
        base = aws.endpoint("ssm")
        headers, data = json_request("AmazonSSM", "RegisterManagedInstance", body)
        try:
            connection = transport.connect(base, CONNECT_SECONDS, READ_SECONDS, aws.ca_bundle)
            try:
                connection.request("POST", "/", data, headers)
                response = connection.getresponse()
                answer = parsed(response.read())
            finally:
                connection.close()
        except OSError as error:
            raise aws.unreachable(base, error) from error
        if response.status != 200:
            raise aws.refused("ssm", "RegisterManagedInstance", error_of(response.status, answer), "")
        return answer

    # ------------------------------------------------------------------------------------------- who asks

    def create_test_role(self) -> None:
        """Make the role for trials."""
        trust = self.policies.test_trust(self._external_id)
        self.create_role("test", trust, self.policies.test_policy)

    def assumed(self, *statements: Mapping[str, Any], who: str = "") -> AwsSession:
        """A session of the role for trials that may do what these statements allow, and no more.

        Args:
            statements: what it may do.
            who: what the name of the session ends with: another one is somebody else for `${aws:userid}`.

        Raises:
            SmsshError: the role cannot be assumed.
        """
        caller = self.account.caller
        arn = f"arn:{caller.partition}:iam::{caller.account}:role/{self.run.roles['test']}"
        made = self.settled(
            "access-denied",
            "sts",
            "assume_role",
            RoleArn=arn,
            RoleSessionName=f"{self.run.name}{who}",
            ExternalId=self._external_id,
            DurationSeconds=_SESSION_SECONDS,
            Policy=json.dumps(document(*statements), separators=(",", ":")),
        )["Credentials"]
        keys = StaticKeys(str(made["AccessKeyId"]), str(made["SecretAccessKey"]), str(made["SessionToken"]))
        return _AssumedSession(self.account.aws, keys)

    # ------------------------------------------------------------------------------------------- what takes a moment

    def settled(self, trouble: str, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make a call that needs what was made a moment ago: it is repeated while the answer is this error.

        Args:
            trouble: a code of the service, or the reference of an error of ours.
            service: see `call`.
            operation: see `call`.
            arguments: see `call`.
        """
        answer: dict[str, Any] = self.patiently(trouble, lambda: self.call(service, operation, **arguments))
        return answer

    def patiently(self, trouble: str, action: Callable[[], Any]) -> Any:
        """Do something again while it fails with an error, for as long as AWS may take; see `settled`."""
        waited = 0.0
        while True:
            try:
                return action()
            except SmsshError as error:
                if trouble not in (getattr(error, "code", ""), error.reference) or waited >= SETTLE_SECONDS:
                    raise
            self.sleep(PAUSE_SECONDS)
            waited += PAUSE_SECONDS

    def until(self, look: Callable[[], bool], seconds: float | None = None) -> bool:
        """Look until something is so; whether it is.

        Args:
            look: whether it is so now.
            seconds: how long it may take; by default as long as AWS may take to know what was made.
        """
        waited = 0.0
        while not look():
            if waited >= (SETTLE_SECONDS if seconds is None else seconds):
                return False
            self.sleep(PAUSE_SECONDS)
            waited += PAUSE_SECONDS
        return True

    def found(self, key: str, values: Sequence[str]) -> list[dict[str, Any]]:
        """The nodes that one filter of DescribeInstanceInformation means."""
        filters = [{"Key": key, "Values": list(values)}]
        return self._all(
            "ssm", "describe_instance_information", "InstanceInformationList", Filters=filters, MaxResults=50
        )

    def activations_of(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """The activations whose nodes get one of these roles."""
        filters = [{"FilterKey": "IamRole", "FilterValues": list(roles)}]
        return self._all("ssm", "describe_activations", "ActivationList", Filters=filters, MaxResults=50)

    def _all(self, service: str, operation: str, member: str, **arguments: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = self.call(service, operation, **arguments)
            found += answer.get(member) or ()
            if not answer.get("NextToken"):
                return found
            arguments["NextToken"] = answer["NextToken"]

    def tags_of(self, node: str) -> dict[str, str]:
        """The tags of a node."""
        answer = self.call("ssm", "list_tags_for_resource", ResourceType="ManagedInstance", ResourceId=node)
        return tags_of(answer, "TagList")

    def _gone(self, codes: Sequence[str], service: str, operation: str, **arguments: Any) -> None:
        """Make a call that removes something; that it is not there is no error."""
        try:
            self.call(service, operation, **arguments)
        except ServiceRefused as error:
            if error.code not in codes:
                raise


class _AssumedSession(AwsSession):
    """Calls with the credentials of a session of a role, in the region and at the endpoints of another session."""

    def __init__(self, base: AwsSession, keys: StaticKeys) -> None:
        profile = base.profile
        super().__init__(base.region, profile.name if profile.explicit else None)
        self._keys = keys

    def credentials(self) -> Keys:
        return self._keys


def _nobodys_key() -> str:
    """A public RSA key of 2048 bits with no private key, as agents register theirs: DER in base64 (RFC 5280, 4.1)."""
    modulus = bytearray(secrets.token_bytes(_MODULUS_BYTES))
    modulus[0] |= 0x80
    modulus[-1] |= 1
    numbers = _der(0x02, b"\0" + bytes(modulus)) + _der(0x02, b"\x01\0\x01")
    key = bytes.fromhex(_RSA) + _der(0x03, b"\0" + _der(0x30, numbers))
    return base64.b64encode(_der(0x30, key)).decode()


def _der(tag: int, content: bytes) -> bytes:
    """A value of DER with its tag and length."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
