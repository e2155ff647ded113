"""What was tested without an AWS account, and what only AWS can show: the one source of that table.

docs/aws.md shows it, and `smssh doctor --live` fills it in. A question has a step that settles it, or the reason why
none does.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SUBJECTS", "Question", "Subject"]


@dataclass(frozen=True)
class Question:
    """Something that only AWS can show.

    Attributes:
        text: what, as the end of "only AWS can show ...".
        step: the step of `smssh doctor --live` that settles it; "" for none.
        why_not: why no step does.
    """

    text: str
    step: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Subject:
    """A row of the table.

    Attributes:
        text: what was tested, as Markdown.
        real: whether with the real thing.
        emulated: whether with the local emulator.
        questions: what only AWS can show of it.
    """

    text: str
    real: bool
    emulated: bool
    questions: tuple[Question, ...] = ()


SUBJECTS = (
    Subject("SageMaker Python SDK v2 and v3, sagemaker-training, sagemaker-inference", True, False),
    Subject("`ssh`, `scp`, `sshd`, asyncssh", True, False),
    Subject(
        "requests accepted by botocore's service model",
        True,
        False,
        (
            Question("the service's own checks of processing jobs", "live.job"),
            Question("of the other kinds", why_not="it needs a job of each kind"),
        ),
    ),
    Subject(
        "job containers, pipelines, batch transform",
        False,
        True,
        (
            Question("whether a released job ends as its entry point did", "live.job-end"),
            Question("smssh's lines in the job's log", "live.job-log"),
            Question("images of AWS", why_not="it needs a job with each image"),
            Question("AdditionalModelDataSources in batch transform", why_not="it needs a transform job"),
        ),
    ),
    Subject(
        "Session Manager: client, service and agent protocol",
        False,
        True,
        (
            Question("whether the account has the advanced tier", "live.tier"),
            Question(
                "whether nodes get the tags of their activation, and are found by them", "live.registration"
            ),
            Question("whether StartSession is throttled above 3 calls a second", "live.pacing"),
            Question("whether a container comes online", "live.job-online"),
            Question("whether its job can change its state tag", "live.host-tags"),
            Question("whether ssh logs in to it", "live.login"),
            Question(
                "sizes of messages, idle time-outs, sessions that are cut",
                why_not="it needs hours, or a setting of the account",
            ),
        ),
    ),
    Subject(
        "SageMaker's remote debugging (`native`, `smssh remote-debug`)",
        False,
        True,
        (
            Question(
                "whether the documents for SSH and port forwarding are allowed for its targets",
                why_not="it needs a training job with remote debugging",
            ),
        ),
    ),
    Subject(
        "Amazon's agent 3.3, built from its source (`SMSSH_TEST_SSM_AGENT=FOLDER`): found, unpacked, registered, "
        "killed, deregistered; our client's sessions with it",
        True,
        False,
        (
            Question(
                "the packages of AWS's buckets",
                why_not="each submit reads and pins them; no step of its own does",
            ),
        ),
    ),
    Subject(
        "session-manager-plugin 1.2, built from its source (`SMSSH_TEST_SESSION_MANAGER_PLUGIN=FILE`): its sessions "
        "with the agent and the fake agent",
        True,
        False,
    ),
    Subject(
        "IAM policies: what works with exactly them, and what is denied without single statements "
        "([`--iam`](local-emulator.md#iam))",
        False,
        True,
        (
            Question("whether AWS decides the same on trust of the node role", "live.node-role"),
            Question("on a node role with a path", "live.role-path"),
            Question("on the tags of new activations", "live.tag-new"),
            Question("on passing the node role", "live.pass-role"),
            Question("on the conditions for those tags", "live.tag-conditions"),
            Question("on the state tags of nodes", "live.state-tags"),
            Question("on the owner's condition for sessions", "live.owner"),
            Question("on session documents", "live.documents"),
            Question("on sessions without a document", "live.no-document"),
            Question("on the resource of TerminateSession", "live.session-resource"),
            Question("on the end of nodes", "live.deregister"),
            Question("on the owner's condition for a host that is online", "live.host-owner"),
            Question("on opening data channels", "live.data-channel"),
            Question("on the condition for ending one's own sessions", "live.own-sessions"),
            Question(
                "whether source identity and session tags reach jobs",
                why_not="it needs jobs that are submitted with them, of each kind",
            ),
        ),
    ),
    Subject(
        "IAM policies: actions, resource types, condition keys (parliament); templates (cfn-lint, moto, Terraform)",
        True,
        False,
    ),
    Subject(
        "`smssh setup --apply` and `--undo`, killed at each call",
        False,
        True,
        (
            Question("how long IAM takes until it knows what was made", "live.node-role"),
            Question("who the service says set the tier", why_not="it needs a change of the tier"),
        ),
    ),
    Subject(
        "`smssh doctor --live`, each answer, killed at each call",
        False,
        True,
        (Question("its answers", why_not="it is what gives them"),),
    ),
    Subject(
        "`smssh costs`: prices",
        False,
        True,
        (Question("whether the price list has one price for each instance", "live.prices"),),
    ),
)
"""In the order of the table."""
