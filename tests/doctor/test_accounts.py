"""Good and broken set-ups on the local emulator: doctor names the one cause, and raises no false alarm."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.client import ssh_config
from smssh_plugin.doctor.case import Case
from smssh_plugin.doctor.catalogue import chosen
from smssh_plugin.doctor.checks import Finding, Outcome, Result
from smssh_plugin.doctor.run import run
from smssh_plugin.keys import ensure_key
from smssh_plugin.local.faults import Fault
from tests.client.nodes import add_node, set_state, set_tag, use
from tests.local.service_harness import Service, definition, processing, step, training, transform
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from smssh_plugin.aws.session import AwsSession

pytestmark = pytest.mark.needs("ssh")

ROLE = "SageMakerRole"
TRUST = {
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
        self.job: str | None = None
        self.pipeline: str | None = None
        self.node = ""

    def role(self, trust: dict[str, Any] = TRUST) -> None:
        """The role of the jobs, in place of the one that was there."""
        iam = self.service.client("iam")
        iam.update_assume_role_policy(RoleName=ROLE, PolicyDocument=json.dumps(trust))

    def running(self, kind: str = "training", node: bool = True, **more: Any) -> None:
        """A job that runs, with SSH in its request and its node online."""
        environment = {
            "SMSSH_ENABLE": "1",
            "SMSSH_ROLE": ROLE,
            "OUTCOME": "hold",
            **more.pop("Environment", {}),
        }
        sagemaker = self.service.sagemaker
        if kind == "training":
            sagemaker.create_training_job(TrainingJobName="job", **training(Environment=environment, **more))
        elif kind == "processing":
            sagemaker.create_processing_job(
                ProcessingJobName="job", **processing(Environment=environment, **more)
            )
        else:
            container = {"Image": "image", "ModelDataUrl": "s3://bucket/model.tar.gz"}
            arn = f"arn:aws:iam::123456789012:role/{ROLE}"
            sagemaker.create_model(ModelName="model", PrimaryContainer=container, ExecutionRoleArn=arn)
            sagemaker.create_transform_job(
                TransformJobName="job", **transform(Environment=environment, **more)
            )
        until(lambda: "job" in self.service.runner.running)
        self.job = f"job.{kind}.sagemaker"
        if node:
            self.node = add_node(self.service, "job", kind)
            self.service.sessions.nodes.nodes[self.node].activation.role = ROLE

    def fails(self, operation: str, code: str = "AccessDeniedException", message: str = "") -> None:
        """Have an operation fail from now on."""
        self.service.sessions.faults.add(
            Fault(operation, code, message or DENIED.format(operation, operation))
        )

    def results(self, *names: str, limit: float = 60.0) -> dict[str, Result]:
        """What doctor finds, by the ids of the checks."""
        given = [name for name, value in (("job", self.job), ("pipeline", self.pipeline)) if value]
        case = Case(self.session, self.job, self.pipeline)
        return {each.check.id: each for each in run(chosen(names, given), case, limit=limit)}

    def findings(self, outcome: Outcome, *names: str) -> dict[str, Finding]:
        return {
            name: each.finding
            for name, each in self.results(*names).items()
            if each.finding.outcome is outcome
        }


@pytest.fixture
def account(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Account:
    for name in list(os.environ):
        if name.startswith(
            ("SMSSH_O", "SMSSH_R", "SMSSH_N", "HTTP", "http", "AWS_CA", "SSL_CERT", "REQUESTS")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-keys"))
    found = Account(service, use(service, monkeypatch), monkeypatch, tmp_path)
    service.client("iam").create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))
    return found


# ------------------------------------------------------------------------------------------------- good ones


def bare(_: Account) -> None:
    """Nothing but an account."""


def logged_in_before(account: Account) -> None:
    ensure_key()
    ssh_config.install()


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
    account.running(VpcConfig={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]})


def a_job_by_its_bare_name(account: Account) -> None:
    account.running()
    account.job = "job"


def a_native_job(account: Account) -> None:
    account.running(node=False, Environment={"SMSSH_ROLE": ""}, RemoteDebugConfig={"EnableRemoteDebug": True})
    account.role({"Version": "2012-10-17", "Statement": []})


def a_held_job_of_an_owner(account: Account) -> None:
    account.running()
    set_tag(account.service, account.node, "SSHOwner", "ann")
    set_state(account.service, account.node, "held")
    account.patch.setenv("SMSSH_OWNER", "ann")
    account.patch.setenv("SMSSH_ROLE", ROLE)


def a_narrow_trust_policy(account: Account) -> None:
    statement = {
        **TRUST["Statement"][0],
        "Condition": {
            "StringEquals": {"aws:SourceAccount": "123456789012"},
            "ArnLike": {"aws:SourceArn": "arn:aws:ssm:us-east-1:123456789012:*"},
        },
    }
    account.role({"Version": "2012-10-17", "Statement": [statement]})
    account.running()


def a_container_that_started_again(account: Account) -> None:
    account.running()
    nodes = account.service.sessions.nodes.nodes
    nodes[account.node].registered = time.time() - 100
    new = add_node(account.service, "job")
    nodes[new].registered, nodes[new].activation.role = time.time() + 60, ROLE


def a_pipeline(account: Account) -> None:
    arguments = training(Environment={"SMSSH_ENABLE": "1", "OUTCOME": "hold"})
    account.service.pipeline(definition(step("Train", "Training", arguments)))
    arn = account.service.start_pipeline()
    until(lambda: account.service.steps(arn).get("Train", {}).get("Metadata"))
    account.pipeline = "pipe"


def preferences_of_their_own(account: Account) -> None:
    content = {
        "schemaVersion": "1.0",
        "sessionType": "Standard_Stream",
        "inputs": {"idleSessionTimeout": "20", "kmsKeyId": "1234", "runAsEnabled": True},
    }
    account.service.client("ssm").update_document(
        Name="SSM-SessionManagerRunShell", Content=json.dumps(content), DocumentVersion="$LATEST"
    )


GOOD = (
    bare,
    logged_in_before,
    with_a_config_of_ones_own,
    a_training_job,
    a_processing_job,
    a_transform_job,
    a_job_in_a_vpc,
    a_job_by_its_bare_name,
    a_native_job,
    a_held_job_of_an_owner,
    a_narrow_trust_policy,
    a_container_that_started_again,
    a_pipeline,
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
    real = time.time
    account.patch.setattr("smssh_plugin.aws.json_client.time.time", lambda: real() - 1380)


def a_proxy_that_is_gone(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    account.patch.setenv("NO_PROXY", "")
    account.patch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")


def a_proxy_that_is_no_url(account: Account) -> None:
    account.patch.setenv("HTTPS_PROXY", "http://ann:pass/word@proxy:3128")


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
    account.job = "job.training.sagemaker"


def another_kind_of_job(account: Account) -> None:
    account.running("processing")
    account.job = "job.training.sagemaker"


def no_such_host(account: Account) -> None:
    account.running()
    account.job = "algo-7.job.training.sagemaker"


def a_job_that_has_failed(account: Account) -> None:
    account.service.sagemaker.create_training_job(
        TrainingJobName="job", **training(Environment={"SMSSH_ENABLE": "1", "OUTCOME": "fail"})
    )
    account.service.job_status("Training", "job", "Failed")
    account.job = "job"


def a_job_without_smssh(account: Account) -> None:
    environment = {"OUTCOME": "hold"}
    account.service.sagemaker.create_training_job(TrainingJobName="job", **training(Environment=environment))
    account.job = "job"


def a_job_with_smssh_off(account: Account) -> None:
    account.running(node=False, Environment={"SMSSH_ENABLE": "0"})


def network_isolation(account: Account) -> None:
    account.running(node=False, EnableNetworkIsolation=True)


def no_trust(account: Account) -> None:
    statement = {**TRUST["Statement"][0], "Principal": {"Service": "sagemaker.amazonaws.com"}}
    account.role({"Version": "2012-10-17", "Statement": [statement]})
    account.running(node=False)


def trust_in_another_account(account: Account) -> None:
    condition = {"StringEquals": {"aws:SourceAccount": "999999999999"}}
    account.role({"Version": "2012-10-17", "Statement": [{**TRUST["Statement"][0], "Condition": condition}]})
    account.running(node=False)


def no_such_role(account: Account) -> None:
    account.running(node=False, Environment={"SMSSH_ROLE": "gone"})


def _started_long_ago(account: Account) -> None:
    # The emulator's own clock, which its description of the job comes from.
    real = time.time
    account.patch.setattr("smssh_plugin.doctor.job.time.time", lambda: real() + 3600)


def a_host_that_did_not_register(account: Account) -> None:
    account.running(node=False)
    _started_long_ago(account)


def a_node_that_is_offline(account: Account) -> None:
    account.running()
    account.service.sessions.nodes.nodes[account.node].pinged = time.time() - 3600


def a_container_that_has_ended(account: Account) -> None:
    account.running()
    set_state(account.service, account.node, "ended")


def two_that_claim_the_host(account: Account) -> None:
    account.running()
    for node in (account.node, add_node(account.service, "job")):
        found = account.service.sessions.nodes.nodes[node]
        found.registered, found.activation.role = time.time() + 60, ROLE


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
    account.pipeline = "pipe"


def a_pipeline_without_smssh(account: Account) -> None:
    account.service.pipeline(definition(step("Train", "Training", training())))
    account.pipeline = "pipe"


def a_pipeline_without_jobs(account: Account) -> None:
    account.service.pipeline(definition(step("Stop", "Fail", {"ErrorMessage": "no"})))
    account.pipeline = "pipe"


BROKEN = {
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
