"""The managed node: its activation and tags, what goes wrong with AWS, and that nothing of it is left behind."""

import dataclasses
import email.utils
import http.server
import json
import threading
import time
from contextlib import contextmanager

import botocore.session
import pytest

from smssh_plugin.container import aws_calls, managed_node
from smssh_plugin.container.managed_node import ContainerNode, role_names, tag_text, tags
from smssh_plugin.errors import SmsshError
from smssh_plugin.hookspecs import Job
from smssh_plugin.local.agent.installed import install
from smssh_plugin.local.service_error import ServiceError
from tests.aws.peers import Api, Proxy, certificate
from tests.waiting import LIMIT, until

from .agents import HOST_KEY, context, silence

CODE = "c0de" * 5


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_MAX_ATTEMPTS", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_SSM"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAJOBJOBJOBJOBJOBJ")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-jobs-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def here(monkeypatch, stack):
    """The hooks' clients talk to the session service of the test."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.url)
    return stack


class Installed:
    """What `ssm_agent.install` answers, with a program of the test's."""

    def __init__(self, folder, program):
        self.folder = folder
        self.program = program


@pytest.fixture
def installed(tmp_path, here):
    """The fake agent, configured for the test's service."""
    folder = tmp_path / "agent"
    program = install(folder)
    (folder / "configuration").mkdir()
    (folder / "configuration" / "amazon-ssm-agent.json").write_text(
        json.dumps({"Ssm": {"Endpoint": here.url}, "Mgs": {"Endpoint": here.url}})
    )
    return Installed(folder, program)


def node(made):
    return ContainerNode(made, aws_calls.client("ssm", "us-east-1"))


def fault(code, message, status=400):
    return ServiceError(code, message, status)


# ------------------------------------------------------------------------------------------------- tags and roles


def pattern(shape):
    model = botocore.session.get_session().get_service_model("ssm")
    return model.shape_for(shape).metadata


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("plain", "plain"),
        ("AROAEXAMPLE:me@example.com", "AROAEXAMPLE:me@example.com"),
        ("Schätzung 学習 №5", "Schätzung 学習 _5"),
        ("a,b;c'd\"e(f)", "a_b_c_d_e_f_"),
        ("tab\there\nthere", "tab_here_there"),
        ("😀", "_"),
        ("x" * 256, "x" * 256),
        ("x" * 257, ""),
        (HOST_KEY, HOST_KEY),
    ],
)
def test_tags_hold_what_tags_can_hold(given, expected) -> None:
    assert tag_text(given) == expected
    limits = pattern("TagValue")
    assert len(tag_text(given)) <= limits["max"] == managed_node.TAG_LIMIT
    # \p{L}\p{Z}\p{N} are letters, separators and numbers, which is what unicodedata's L, Z and N are.
    assert limits["pattern"] == r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"


def test_all_tags_and_what_was_changed_is_said(tmp_path, caplog) -> None:
    job = Job("job-1", "processing", "algo-2", step="Prepare (all)")
    made = context(tmp_path, job=job)
    made.settings = dataclasses.replace(made.settings, owner="AROA:me,too")  # as smssh_configure can
    with caplog.at_level("WARNING"):
        found = tags(made)
    assert found["SMSSHStep"] == "Prepare _all_"
    assert found["SSHOwner"] == "AROA:me_too"
    assert "SSHOwner" in caplog.text  # its IAM condition will not match
    assert {
        "SMSSH",
        "SMSSHJob",
        "SMSSHKind",
        "SMSSHHost",
        "SMSSHHostKey",
        "SMSSHPort",
        "SMSSHUser",
    } <= found.keys()
    assert "" not in found.values()


def test_roles_by_name_by_path_and_by_arn() -> None:
    assert role_names("Nodes") == ["Nodes"]
    arn = "arn:aws-cn:iam::123456789012:role/service-role/Nodes"
    assert role_names(arn) == ["service-role/Nodes", "Nodes"]
    # CreateActivation takes 64 characters; a path and a name may be 512 and 64.
    long = "arn:aws:iam::123456789012:role/" + "p" * 60 + "/" + "n" * 64
    assert role_names(long) == ["n" * 64]
    assert pattern("IamRole")["max"] == managed_node.ROLE_LIMIT


# ------------------------------------------------------------------------------------------------- region


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION", "SAGEMAKER_REGION"])
def test_the_region_of_the_environment(tmp_path, name) -> None:
    made = (
        context(tmp_path, AWS_REGION="", **{name: "eu-west-1"}) if name != "AWS_REGION" else context(tmp_path)
    )
    assert aws_calls.region(made) == ("us-east-1" if name == "AWS_REGION" else "eu-west-1")


def test_the_region_of_the_jobs_own_files(tmp_path, monkeypatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    arn = "arn:aws:sagemaker:eu-north-1:123456789012:processing-job/p"
    job = Job("p", "processing", "algo-1", arn=arn)
    assert aws_calls.region(context(tmp_path, AWS_REGION="", job=job)) == "eu-north-1"
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    bare = context(tmp_path, AWS_REGION="", SAGEMAKER_BASE_DIR=str(tmp_path))
    with pytest.raises(SmsshError, match="does not say its AWS region"):
        aws_calls.region(bare)
    (config / "hyperparameters.json").write_text(json.dumps({"sagemaker_region": '"ap-south-1"'}))
    assert aws_calls.region(bare) == "ap-south-1"


# ------------------------------------------------------------------------------------------------- what goes wrong


def activation_error(made):
    with pytest.raises(SmsshError) as caught:
        node(made)._activate()
    return caught.value


@pytest.mark.parametrize(
    ("error", "reference", "words"),
    [
        (
            fault(
                "AccessDeniedException",
                "User: arn:aws:sts::123456789012:assumed-role/Job/SageMaker is not authorized to perform: "
                "ssm:CreateActivation on resource: arn:aws:ssm:us-east-1:123456789012:* because no identity-based "
                "policy allows the ssm:CreateActivation action",
            ),
            "access-denied",
            "may not ssm:CreateActivation on arn:aws:ssm:us-east-1:123456789012:* (no identity-based policy",
        ),
        (
            fault(
                "AccessDeniedException",
                "User: arn:aws:sts::1:assumed-role/Job/SageMaker is not authorized to perform: iam:PassRole on "
                'resource: "arn:aws:iam::1:role/Job"',
            ),
            "access-denied",
            "allow iam:PassRole in the policy",
        ),
        (fault("AccessDeniedException", ""), "access-denied", "allow ssm:CreateActivation"),
        (
            fault(
                "ValidationException",
                "Nonexistent role or missing ssm service principal in trust policy: arn:aws:iam::1:role/Job",
            ),
            "role-not-trusted",
            "ssm.amazonaws.com",
        ),
        (
            fault("UnrecognizedClientException", "The security token included in the request is invalid."),
            "bad-credentials",
            "ssm:CreateActivation",
        ),
        (fault("ExpiredTokenException", "expired"), "bad-credentials", "ExpiredTokenException"),
        (fault("SomethingNew", "of which nobody knows"), "aws-error", "of which nobody knows"),
    ],
)
def test_what_aws_refuses_is_explained(tmp_path, here, error, reference, words) -> None:
    here.service.faults["CreateActivation"] = error
    found = activation_error(context(tmp_path))
    assert found.reference == reference
    assert words in str(found)
    assert here.calls.count("CreateActivation") == 1


def test_throttled_calls_come_back(tmp_path, here) -> None:
    here.service.faults["CreateActivation"] = fault("ThrottlingException", "Rate exceeded")

    def relent():
        until(lambda: here.calls.count("CreateActivation") >= 3)
        del here.service.faults["CreateActivation"]

    threading.Thread(target=relent, daemon=True).start()
    assert node(context(tmp_path))._activate()


def test_throttling_has_an_end(tmp_path, here, monkeypatch) -> None:
    monkeypatch.setattr(aws_calls, "THROTTLED_SECONDS", 0.3)
    here.service.faults["CreateActivation"] = fault("ThrottlingException", "Rate exceeded")
    assert activation_error(context(tmp_path)).reference == "throttled"


def test_pauses_are_random_and_bounded(tmp_path, here, monkeypatch) -> None:
    limits = []
    monkeypatch.setattr(aws_calls.random, "uniform", lambda low, high: limits.append((low, high)) or 0.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "12")
    here.service.faults["CreateActivation"] = fault("ThrottlingException", "Rate exceeded")
    assert activation_error(context(tmp_path)).reference == "throttled"
    assert here.calls.count("CreateActivation") == 12
    assert [low for low, _ in limits] == [0.0] * 12
    highs = [high for _, high in limits]
    assert highs == sorted(highs)
    assert highs[-1] == aws_calls.PAUSE_LONGEST


def test_the_end_of_the_job_ends_the_attempts(tmp_path, here) -> None:
    made = context(tmp_path)
    here.service.faults["CreateActivation"] = fault("ThrottlingException", "Rate exceeded")
    threading.Timer(0.1, made.ending.set).start()
    assert activation_error(made).reference == "throttled"


def test_nobody_there_is_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(aws_calls, "NETWORK_SECONDS", 0.3)
    found = activation_error(context(tmp_path))
    assert found.reference == "no-network"
    assert "interface endpoints ssm and ssmmessages, and the gateway" in str(found)


PROXIES = {
    "http://me:secret@127.0.0.1:PORT": "the proxy 127.0.0.1:PORT does not connect: it answers '407",
    "socks5://me:secret@127.0.0.1:PORT": "only http:// and https:// proxies work",
    "http://me:secret/1@127.0.0.1:PORT": "percent-encode the user name",
}


@pytest.mark.parametrize("address", PROXIES)
def test_a_proxy_that_lets_nobody_through_is_named_at_once(tmp_path, monkeypatch, address) -> None:
    proxy = Proxy(9, refuses=True)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", address.replace("PORT", str(proxy.port)))
    found = activation_error(context(tmp_path))
    proxy.close()
    assert PROXIES[address].replace("PORT", str(proxy.port)) in str(found)
    assert "secret" not in str(found)
    assert "VPC" not in str(found)
    assert len(proxy.heads) <= 1


def test_a_proxy_that_is_not_there_yet_is_tried_again(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(aws_calls, "NETWORK_SECONDS", 0.3)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    began = time.monotonic()
    found = activation_error(context(tmp_path))
    assert time.monotonic() - began >= 0.3
    assert "the proxy 127.0.0.1:9 cannot be reached" in str(found)
    assert "VPC" not in str(found)


def test_a_certificate_that_is_not_trusted_is_named_at_once(tmp_path, monkeypatch) -> None:
    path, tls = certificate(tmp_path, "localhost")
    service = Api(tls)
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.url)
    found = activation_error(context(tmp_path))
    assert "the certificate of localhost is not trusted" in str(found)
    assert "AWS_CA_BUNDLE has to name its certificate" in str(found)
    assert "VPC" not in str(found)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent.pem")
    assert "the bundle of certificates /nonexistent.pem cannot be used" in str(
        activation_error(context(tmp_path))
    )
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    service.answers = [(200, {"ActivationId": "id", "ActivationCode": "code"})]
    assert node(context(tmp_path))._activate() == "code"
    service.close()


def test_no_credentials_are_explained(tmp_path, here, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert activation_error(context(tmp_path)).reference == "no-credentials"


@contextmanager
def service_with_clock(ahead, code, message):
    """Answers every call with an error, and with the time as its own clock shows it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"__type": code, "message": message}).encode()
            self.send_response_only(400)
            self.send_header("Date", email.utils.formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("ahead", "words"), [(1800, "behind"), (-1800, "ahead of")])
def test_a_wrong_clock_is_explained(tmp_path, monkeypatch, ahead, words) -> None:
    message = "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z"
    with service_with_clock(ahead, "InvalidSignatureException", message) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = activation_error(context(tmp_path))
    assert found.reference == "clock-skew"
    assert f"s {words} AWS's" in found.message


def test_a_wrong_signature_is_never_quoted(tmp_path, monkeypatch) -> None:
    """The answer to one holds what was signed, the session token included."""
    message = "The Canonical String should have been 'x-amz-security-token:the-jobs-token'"
    with service_with_clock(0, "SignatureDoesNotMatch", message) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = activation_error(context(tmp_path))
    assert found.reference == "bad-credentials"
    assert "the-jobs-token" not in str(found)


def test_a_role_with_a_path_is_tried_without(tmp_path, here, monkeypatch) -> None:
    asked = []
    create = here.service._operations["CreateActivation"]

    async def picky(body, key):
        asked.append(body["IamRole"])
        if "/" in body["IamRole"]:
            raise fault("ValidationException", "Value at 'iamRole' failed to satisfy constraint: ^[\\p{L}]*$")
        return await create(body, key)

    monkeypatch.setitem(here.service._operations, "CreateActivation", picky)
    made = context(tmp_path, SMSSH_ROLE="arn:aws:iam::123456789012:role/service-role/Nodes")
    assert node(made)._activate()
    assert asked == ["service-role/Nodes", "Nodes"]


# ------------------------------------------------------------------------------------------------- one node, and none


def nodes(stack):
    return stack.call("DescribeInstanceInformation")["InstanceInformationList"]


def activations(stack):
    return stack.call("DescribeActivations")["ActivationList"]


def test_an_activation_is_for_one_host_and_for_half_an_hour(tmp_path, here) -> None:
    node(context(tmp_path))._activate()
    (found,) = activations(here)
    assert found["RegistrationLimit"] == 1
    assert 1500 < found["ExpirationDate"] - time.time() <= managed_node.ACTIVATION_SECONDS


def test_register_and_deregister(tmp_path, here, installed) -> None:
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    assert [found["InstanceId"] for found in nodes(here)] == [made.id]
    # Used up, it would only stand in the account's list; and be left there by a job that is killed.
    made._chores.put(None)
    made._chore_thread.join(LIMIT)
    assert activations(here) == []
    made.deregister()
    assert nodes(here) == []


def program(tmp_path, installed, text):
    """Another program in the place of the agent; `$REAL` is the agent."""
    path = installed.folder / "instead"
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\nREAL={installed.program}\n{text}\n")
    path.chmod(0o755)
    installed.program = path
    return installed


@pytest.mark.parametrize(
    "text",
    [
        "echo it does not work; exit 3",
        "echo 'Registration failed: mi-short'; exit 0",
        'echo "$@"; exit 1',
    ],
)
def test_a_registration_that_fails_leaves_nothing(tmp_path, here, installed, text, monkeypatch) -> None:
    codes = []
    create = here.service._operations["CreateActivation"]

    async def remember(body, key):
        answer = await create(body, key)
        codes.append(answer["ActivationCode"])
        return answer

    monkeypatch.setitem(here.service._operations, "CreateActivation", remember)
    made = node(context(tmp_path))
    with pytest.raises(SmsshError, match="-register failed with status") as caught:
        made.register(program(tmp_path, installed, text), "us-east-1")
    assert codes
    assert codes[0] not in str(caught.value)
    made.deregister()
    assert nodes(here) == activations(here) == []
    # The code is in no file.
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or codes[0].encode() not in path.read_bytes(), path


def test_a_registration_that_hangs_has_an_end(tmp_path, here, installed, monkeypatch) -> None:
    monkeypatch.setattr(managed_node, "REGISTER_SECONDS", 0.3)
    made = node(context(tmp_path))
    with pytest.raises(SmsshError, match="did not end in time"):
        made.register(program(tmp_path, installed, "exec sleep 100"), "us-east-1")
    made.deregister()
    assert activations(here) == []


@pytest.mark.parametrize(
    "text",
    [
        '"$REAL" "$@"; exec sleep 100',  # it has said which node it is
        '"$REAL" "$@" >/dev/null; exec sleep 100',  # only Systems Manager knows
    ],
)
def test_a_registration_that_the_end_of_the_job_cuts_off_leaves_no_node(
    tmp_path, here, installed, text
) -> None:
    made = context(tmp_path)
    cut = node(made)

    def end():
        until(lambda: "RegisterManagedInstance" in here.calls and here.service.nodes.nodes)
        made.ending.set()

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(SmsshError, match="did not end in time"):
        cut.register(program(tmp_path, installed, text), "us-east-1")
    # The harm: the node is there, and nothing but us would ever take it away.
    assert len(here.service.nodes.nodes) == 1
    cut.deregister()
    assert not here.service.nodes.nodes
    assert activations(here) == []


@pytest.mark.parametrize(
    "error", [fault("ThrottlingException", "Rate exceeded"), fault("InternalServerError", "later", 500)]
)
def test_the_end_of_many_hosts_leaves_no_node(tmp_path, here, installed, error) -> None:
    """They end together and are throttled together: who asks once leaves its node behind."""
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    made._chores.put(None)
    made._chore_thread.join(LIMIT)
    here.service.faults["DeregisterManagedInstance"] = error

    def relent():
        until(lambda: here.calls.count("DeregisterManagedInstance") >= 3)
        del here.service.faults["DeregisterManagedInstance"]

    threading.Thread(target=relent, daemon=True).start()
    made.deregister()
    assert nodes(here) == []


def test_throttling_at_the_end_is_bounded(tmp_path, here, installed, monkeypatch, caplog) -> None:
    monkeypatch.setattr(managed_node, "END_SECONDS", 1.0)
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    here.service.faults["DeregisterManagedInstance"] = fault("ThrottlingException", "Rate exceeded")
    began = time.monotonic()
    made.deregister()
    assert 0.9 < time.monotonic() - began < 1.8
    assert f"the node {made.id} is not deregistered in 1 s" in caplog.text
    # Nothing goes on behind it, and asks for ever.
    until(
        lambda: all(thread.name != "deregister" for thread in threading.enumerate()), what="its thread's end"
    )


def test_an_end_without_an_answer_is_bounded(tmp_path, monkeypatch) -> None:
    """First the harm: the call itself takes as long as its time-outs, and with botocore's own attempts longer."""
    monkeypatch.setattr(managed_node, "END_SECONDS", 0.3)
    with silence() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        made = node(context(tmp_path))
        made.id = "mi-0123456789abcdef0"
        bare = threading.Thread(target=made._deregister, args=(threading.Event(),), daemon=True)
        bare.start()
        made.deregister()
        assert bare.is_alive()  # still waiting, when the bounded one is back


def test_states_are_told_in_order_and_the_last_one_wins(tmp_path, here, installed) -> None:
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    for state in ("ready", "running", "held"):
        made.tag_state(state)
    made._chores.put(None)
    made._chore_thread.join(LIMIT)
    found = here.call("ListTagsForResource", ResourceType="ManagedInstance", ResourceId=made.id)["TagList"]
    assert {"Key": "SMSSHState", "Value": "held"} in found
    assert 1 <= here.calls.count("AddTagsToResource") <= 2


def changes(stack):
    """The calls that have set tags of a node or taken it away, in their order."""
    return [call for call in stack.calls if call in ("AddTagsToResource", "DeregisterManagedInstance")]


def test_no_state_is_set_of_a_node_that_is_being_taken_away(tmp_path, here, installed) -> None:
    """IAM denies it: a node that is gone has no owner."""
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    in_call, go_on = threading.Event(), threading.Event()
    plain = made._client.add_tags_to_resource

    def slow(**parameters):
        in_call.set()
        assert go_on.wait(LIMIT)
        return plain(**parameters)

    made._client.add_tags_to_resource = slow
    made.tag_state("released")
    assert in_call.wait(LIMIT)
    made.tag_state("running")
    made.tag_state("ended")
    end = threading.Thread(target=made.deregister)
    end.start()
    until(made._leaving.is_set)
    go_on.set()
    end.join(LIMIT)
    made._chore_thread.join(LIMIT)
    assert changes(here) == ["AddTagsToResource", "DeregisterManagedInstance"]


def test_a_tag_that_hangs_does_not_keep_the_node(tmp_path, here, installed, monkeypatch, caplog) -> None:
    monkeypatch.setattr(managed_node, "END_PAUSE", 0.05)
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    in_call, go_on = threading.Event(), threading.Event()

    def hangs(**_):
        in_call.set()
        assert go_on.wait(LIMIT)
        raise OSError("denied")

    made._client.add_tags_to_resource = hangs
    made.tag_state("released")
    assert in_call.wait(LIMIT)
    made.deregister()
    assert made.id not in here.service.nodes.nodes
    go_on.set()
    made._chore_thread.join(LIMIT)
    assert "is not set" not in "".join(
        each.getMessage() for each in caplog.records if each.levelname != "DEBUG"
    )


def test_a_node_that_cannot_be_taken_away_says_that_its_container_has_ended(
    tmp_path, here, installed, caplog
) -> None:
    """It is Online for minutes after that."""
    made = node(context(tmp_path))
    made.register(installed, "us-east-1")
    made.tag_state("running")
    made.tag_state("ended")
    here.service.faults["DeregisterManagedInstance"] = fault("AccessDeniedException", "no")
    made.deregister()
    found = here.call("ListTagsForResource", ResourceType="ManagedInstance", ResourceId=made.id)["TagList"]
    assert {"Key": "SMSSHState", "Value": "ended"} in found
