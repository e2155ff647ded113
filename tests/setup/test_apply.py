"""A setup that is applied to an account and undone: whole, in the middle of which it is killed, and among others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from moto.iam.models import iam_backends

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.faults import Fault
from smssh_plugin.setup import managed_policies, marks, parts
from smssh_plugin.setup.apply import MANAGED, Run, changes_of, removals_of
from smssh_plugin.setup.documents import documents
from smssh_plugin.setup.parts import PARTS, Setup
from tests.client.nodes import add_node, use
from tests.local.service_harness import running
from tests.setup.accounts import EVERY_PART, TRUST, Failing, Place, apply, tags, undo
from tests.setup.samples import ACCOUNT, ROLE, everything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smssh_plugin.setup.account import Account
    from smssh_plugin.setup.change import Change
    from tests.local.service_harness import Service

NAME = ROLE.rpartition("/")[2]
JOB = f"arn:aws:iam::{ACCOUNT}:policy/smssh-job"
OTHER = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def place(emulator: Service, monkeypatch: pytest.MonkeyPatch) -> Place:
    use(emulator, monkeypatch)
    return Place(emulator)


@pytest.fixture
def account(place: Place) -> Account:
    return place.account()


def verbs(run: Run) -> dict[str, str]:
    return {each.what: each.verb for each in run.changes}


def found(run: Run, what: str) -> Change:
    return next(each for each in run.changes if each.what == what)


def wanted(account: Account, *chosen: str, **answers: Any) -> Run:
    return Run(changes_of(Setup(everything(**answers), chosen or EVERY_PART), account), undo=False)


def test_what_is_in_the_account_is_what_is_printed(place: Place, account: Account) -> None:
    apply(account)
    printed = documents(Setup(everything(), PARTS))
    for part in MANAGED:
        arn = f"arn:aws:iam::{ACCOUNT}:policy/smssh-{part}"
        version = place.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        got = place.iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        assert got == printed[f"smssh-{part}"]
    role = place.iam.get_role(RoleName="smssh-node")["Role"]
    assert role["AssumeRolePolicyDocument"] == printed["smssh-node-trust"]
    inline = place.iam.get_role_policy(RoleName="smssh-node", PolicyName="session-manager")
    assert inline["PolicyDocument"] == printed["smssh-node-policy"]
    assert json.loads(place.ssm.get_document(Name="smssh-ssh")["Content"]) == printed["smssh-ssh"]
    assert place.service.sessions.tier == "advanced"
    for name in (NAME, "plain"):
        attached = place.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        assert "smssh-job" in [each["PolicyName"] for each in attached]
        assert place.iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"] == TRUST
    for made in (role["Tags"], place.iam.list_policy_tags(PolicyArn=JOB)["Tags"]):
        assert tags(made).items() >= {"smssh": "setup", "SMSSHSetup": "smssh"}.items()


def test_a_second_run_has_nothing_to_do_and_an_undo_leaves_the_account_as_it_was(
    place: Place, account: Account
) -> None:
    before = place.state()
    assert set(verbs(apply(account)).values()) == {"make"}
    made = place.state()
    again = apply(place.account())
    assert set(verbs(again).values()) == {"keep"}
    assert again.done == []
    assert place.state() == made
    assert set(verbs(undo(place.account())).values()) == {"remove"}
    assert place.state() == before
    assert undo(account).changes == []


EACH_KIND = ("node", "job", "document", "tier")
"""The parts that have a thing of each kind."""


def test_a_run_that_is_killed_at_any_call_is_finished_by_the_next_or_removed(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        apply(account, parts=EACH_KIND, job_roles=[ROLE])

    before = place.state()
    act()
    whole = place.state()
    undo(account)
    failing = Failing(monkeypatch, KeyboardInterrupt())
    killed: list[tuple[int, bool]] = []
    finished = 0
    for number, after in failing.every_call(act):
        killed.append((number, after))
        if number % 2 == after:
            act()
            assert place.state() == whole, (number, after)
            finished += 1
        undo(account)
        assert place.state() == before, (number, after)
    assert min(finished, len(killed) - finished) > 10


def test_an_undo_that_is_killed_at_any_call_goes_on(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.state()
    apply(account, parts=EACH_KIND, job_roles=[ROLE])
    whole = place.state()
    failing = Failing(monkeypatch, KeyboardInterrupt())
    killed: list[tuple[int, bool]] = []
    for number, after in failing.every_call(lambda: undo(account)):
        killed.append((number, after))
        if number % 2 == after:
            undo(account)
            assert place.state() == before, (number, after)
        apply(account, parts=EACH_KIND, job_roles=[ROLE])
        assert place.state() == whole, (number, after)
    assert len(killed) > 20


def test_a_change_that_is_killed_at_any_call_is_finished_by_the_next(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back and forth, so that policies reach the five versions that they can have."""
    answers: tuple[dict[str, Any], ...] = ({"features": (), "session_keys": ()}, {})
    turns: list[int] = []

    def change() -> None:
        turn = len(turns) % 2
        monkeypatch.setattr(parts, "_IDLE_MINUTES", 59 + turn)
        apply(account, parts=EACH_KIND, job_roles=[ROLE], **answers[turn])

    states = []
    for _ in answers:
        change()
        states.append(contents(place))
        turns.append(0)
    assert all(one != other for one, other in zip(*(state[:3] for state in states), strict=True))
    for number, after in Failing(monkeypatch, KeyboardInterrupt()).every_call(change):
        change()
        assert contents(place) == states[len(turns) % 2], (number, after)
        turns.append(number)
    versions = place.iam.list_policy_versions(PolicyArn=JOB)["Versions"]
    assert len(versions) == managed_policies.VERSIONS
    assert set(verbs(undo(account)).values()) == {"remove"}


def contents(place: Place) -> Any:
    """The account without the digests of what was there before."""

    def without_digests(found: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in found.items() if key != "SMSSHContent"}

    return json.loads(json.dumps(place.state()), object_hook=without_digests)


# ------------------------------------------------------------------------------------------------ what others have made


def test_our_tags_on_a_role_of_others_do_not_have_it_deleted(place: Place, account: Account) -> None:
    """Who may tag roles, and describe them, can make any of them look like one of ours."""
    own = Setup(everything(), ["node"]).role
    assert own is not None
    marks_of_ours = {
        **marks.MADE,
        marks.SETUP: "smssh",
        marks.CONTENT: marks.content({}),
        marks.TRUST: marks.digest(TRUST),
    }
    for name in ("smssh-node", "another"):
        place.iam.create_role(
            RoleName=name,
            Description=own.description,
            AssumeRolePolicyDocument=json.dumps(TRUST),
            Tags=marks.listed(marks_of_ours),
        )
    before = place.state()
    run = undo(account)
    assert {each.what: each.why for each in run.changes} == dict.fromkeys(
        ("role smssh-node", "role another"), "others than Systems Manager may assume it: delete it by hand"
    )
    assert place.state() == before


@pytest.mark.parametrize("before", ["none", "", 7, None, "advanced; rm"])
def test_a_record_with_a_value_that_the_tier_cannot_have_changes_nothing(
    place: Place, account: Account, before: object
) -> None:
    """Anybody who may write parameters can write it."""
    apply(account, parts=("tier",))
    value = json.dumps({"before": before, "status": "Customized"})
    place.ssm.put_parameter(Name="/smssh/setup/smssh/tier", Value=value, Type="String", Overwrite=True)
    with pytest.raises(SmsshError, match="does not say what the tier was before"):
        undo(account, "tier")
    assert place.service.sessions.tier == "advanced"


def test_a_role_of_others_stays_as_it_is_and_what_it_lacks_is_said(place: Place, account: Account) -> None:
    place.iam.create_role(RoleName="smssh-node", AssumeRolePolicyDocument=json.dumps(TRUST))
    theirs = place.iam.get_role(RoleName="smssh-node")["Role"]
    change = found(apply(account, parts=("node", "job")), "role smssh-node")
    assert change.verb == "keep"
    statement = documents(Setup(everything(), ["node"]))["smssh-node-trust"]["Statement"][0]
    assert f"add {json.dumps(statement)} to its trust policy by hand" in change.why
    assert "give it the permissions of `smssh setup --part node`" in change.why
    assert place.iam.get_role(RoleName="smssh-node")["Role"] == theirs
    assert place.iam.list_role_policies(RoleName="smssh-node")["PolicyNames"] == []
    assert "role smssh-node" not in verbs(undo(account))
    assert place.iam.get_role(RoleName="smssh-node")["Role"] == theirs


def test_a_trust_policy_that_was_changed_is_not_changed_back(place: Place, account: Account) -> None:
    apply(account)
    place.iam.update_assume_role_policy(RoleName="smssh-node", PolicyDocument=json.dumps(TRUST))
    change = found(apply(account), "role smssh-node")
    assert "to its trust policy by hand" in change.why
    assert place.iam.get_role(RoleName="smssh-node")["Role"]["AssumeRolePolicyDocument"] == TRUST
    change = found(undo(account), "role smssh-node")
    assert (change.verb, change.why) == ("leave", "somebody has changed its trust policy: delete it by hand")
    assert place.iam.get_role(RoleName="smssh-node")


@pytest.mark.parametrize(
    ("theirs", "whose"),
    [
        ({}, "it was not made by `smssh setup --apply`"),
        ({"smssh": "setup"}, "it was not made by `smssh setup --apply`"),
        ({"SMSSHSetup": "vision"}, "it belongs to the setup 'vision'"),
        ({"aws:cloudformation:stack-name": "mine"}, "it belongs to the CloudFormation stack 'mine'"),
    ],
    ids=["nobody", "template", "setup", "stack"],
)
def test_a_policy_of_others_is_refused_unless_it_is_the_same(
    place: Place, account: Account, theirs: dict[str, str], whose: str
) -> None:
    listed = [{"Key": key, "Value": value} for key, value in theirs.items()]
    made = place.iam.create_policy(PolicyName="smssh-job", PolicyDocument=json.dumps(OTHER), Tags=[])
    if listed and "aws:" not in listed[0]["Key"]:
        place.iam.tag_policy(PolicyArn=JOB, Tags=listed)
    elif listed:  # a tag that only AWS can set
        (tag,) = listed
        iam_backends[ACCOUNT]["aws"].managed_policies[JOB].tags[tag["Key"]] = tag
    run = wanted(account, "job")
    change = found(run, "policy smssh-job")
    assert (change.verb, change.why) == ("refuse", whose)
    assert any(each.startswith("-") and "s3:*" in each for each in change.lines)
    assert found(undo(account), "policy smssh-job").why == whose
    document = documents(Setup(everything(), ["job"]))["smssh-job"]
    place.iam.create_policy_version(
        PolicyArn=made["Policy"]["Arn"], PolicyDocument=json.dumps(document), SetAsDefault=True
    )
    run = wanted(account, "job")
    assert found(run, "policy smssh-job").verb == "keep"
    # Who made the policy attaches it: nothing would say whose that attachment is.
    assert [each.what for each in run.refused] == [
        "attachment of smssh-job to the role " + role.short for role in everything().job_roles
    ]
    assert found(undo(account), "policy smssh-job").verb == "leave"
    assert place.iam.get_policy(PolicyArn=JOB)


def test_what_somebody_has_changed_is_refused_written_over_if_asked_and_left_by_an_undo(
    place: Place, account: Account
) -> None:
    apply(account)
    place.iam.create_policy_version(PolicyArn=JOB, PolicyDocument=json.dumps(OTHER), SetAsDefault=True)
    place.iam.put_role_policy(
        RoleName="smssh-node", PolicyName="session-manager", PolicyDocument=json.dumps(OTHER)
    )
    document = {**json.loads(place.ssm.get_document(Name="smssh-ssh")["Content"]), "description": "mine"}
    place.ssm.update_document(Name="smssh-ssh", Content=json.dumps(document), DocumentVersion="$LATEST")
    place.ssm.update_document_default_version(Name="smssh-ssh", DocumentVersion="2")
    changed = {"policy smssh-job", "role smssh-node", "session document smssh-ssh"}
    run = wanted(account)
    assert {each.what for each in run.refused} == changed
    assert all("somebody has changed" in each.why and "--replace" in each.why for each in run.refused)
    # What others wrote into the policy holds for its roles, also after an undo.
    run = undo(account, "job", "node", "document")
    assert {each.what for each in run.changes if each.verb == "leave"} == changed | {
        "attachment of smssh-job to the role " + role.name for role in everything().job_roles
    }
    assert run.done == []
    for name in (NAME, "plain"):
        attached = place.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        assert "smssh-job" in [each["PolicyName"] for each in attached]
    run = apply(account, replace=True)
    assert {each.what for each in run.done} == changed
    assert set(verbs(apply(account)).values()) == {"keep"}
    assert set(verbs(undo(account)).values()) == {"remove"}


def test_a_policy_that_others_use_is_left_and_they_are_named(place: Place, account: Account) -> None:
    apply(account)
    people = f"arn:aws:iam::{ACCOUNT}:policy/smssh-people"
    place.iam.create_group(GroupName="ml")
    place.iam.attach_group_policy(GroupName="ml", PolicyArn=people)
    place.iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=json.dumps(TRUST))
    place.iam.attach_role_policy(RoleName="theirs", PolicyArn=JOB)
    place.iam.attach_role_policy(RoleName="smssh-node", PolicyArn=f"arn:aws:iam::{ACCOUNT}:policy/others")
    run = undo(account)
    left = {each.what: each.why for each in run.changes if each.verb == "leave"}
    assert left == {
        "policy smssh-people": "it is attached to group ml: detach it, and run this again",
        "policy smssh-job": "it is attached to role theirs: detach it, and run this again",
        "role smssh-node": "somebody has added the policy others: remove that, and run this again",
    }
    for name, expected in (("theirs", ["smssh-job"]), (NAME, []), ("plain", ["others"])):
        attached = place.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        assert [each["PolicyName"] for each in attached] == expected
    place.iam.detach_group_policy(GroupName="ml", PolicyArn=people)
    place.iam.detach_role_policy(RoleName="theirs", PolicyArn=JOB)
    place.iam.detach_role_policy(RoleName="smssh-node", PolicyArn=f"arn:aws:iam::{ACCOUNT}:policy/others")
    assert set(left) == {each.what for each in undo(account).done}


def test_an_attachment_of_others_stays(place: Place, account: Account) -> None:
    apply(account, job_roles=[ROLE])
    place.iam.attach_role_policy(RoleName="plain", PolicyArn=JOB)
    run = apply(account)
    change = found(run, "attachment of smssh-job to the role plain")
    assert (change.verb, change.why) == ("keep", "somebody else attached it")
    undo(account)
    attached = place.iam.list_attached_role_policies(RoleName="plain")["AttachedPolicies"]
    assert "smssh-job" in [each["PolicyName"] for each in attached]


def test_two_setups_in_one_account_do_not_touch_each_other(place: Place, account: Account) -> None:
    apply(account)
    one = place.state()
    apply(account, name="vision")
    change = wanted(account, "node", node_role="smssh-node", name="vision").changes[0]
    assert (change.verb, change.why) == ("keep", "it belongs to the setup 'smssh', and stays as it is")
    undo(account, name="vision")
    assert place.state() == one


def test_a_node_role_of_another_name_and_path_is_found_by_an_undo(place: Place, account: Account) -> None:
    before = place.state()
    apply(account, parts=("node",), node_role="team/nodes")
    assert place.iam.get_role(RoleName="nodes")["Role"]["Path"] == "/team/"
    run = wanted(account, "node", node_role="nodes")
    assert "pass --node-role team/nodes" in run.refused[0].why
    assert verbs(undo(account)) == {"role team/nodes": "remove"}
    assert place.state() == before


# ------------------------------------------------------------------------------------------------ what cannot be


def test_job_roles_that_are_not_there_or_full_are_refused_before_anything_is_made(
    place: Place, account: Account
) -> None:
    before = place.state()
    run = wanted(account, "job", job_roles=["gone", f"other/{NAME}"])
    assert {each.what: each.why for each in run.refused} == {
        "attachment of smssh-job to the role gone": "there is no such role",
        f"attachment of smssh-job to the role other/{NAME}": f"the role is {ROLE}: pass --job-role {ROLE}",
    }
    for number in range(9):
        made = place.iam.create_policy(PolicyName=f"p{number}", PolicyDocument=json.dumps(OTHER))
        place.iam.attach_role_policy(RoleName="plain", PolicyArn=made["Policy"]["Arn"])
    (refused,) = wanted(account, "job").refused
    assert refused.why == "the role has 10 managed policies, the most that it can"
    with pytest.raises(SmsshError, match="41 job roles are more than one setup can be attached to: 40"):
        changes_of(Setup(everything(job_roles=[f"r{n}" for n in range(41)]), ["job"]), account)
    assert place.state()[1].keys() == before[1].keys()


def test_what_changes_between_the_look_and_the_act_is_not_touched(place: Place, account: Account) -> None:
    apply(account)
    run = Run(changes_of(Setup(everything(features=()), ["people"]), account), undo=False)
    people = f"arn:aws:iam::{ACCOUNT}:policy/smssh-people"
    place.iam.create_policy_version(PolicyArn=people, PolicyDocument=json.dumps(OTHER), SetAsDefault=True)
    with pytest.raises(SmsshError, match="policy smssh-people has changed since it was shown"):
        run.act(lambda _: None)
    removal = Run(removals_of(everything(), account, ("submit",)), undo=True)
    submit = people.replace("people", "submit")
    place.iam.create_policy_version(PolicyArn=submit, PolicyDocument=json.dumps(OTHER), SetAsDefault=True)
    removal.act(lambda _: None)
    assert [each.what for each in removal.left] == ["policy smssh-submit"]
    for arn in (people, submit):
        version = place.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        got = place.iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        assert got == OTHER


def test_a_policy_that_is_changed_between_the_look_and_an_undo_stays_at_its_roles(
    place: Place, account: Account
) -> None:
    apply(account, parts=("job",), job_roles=[ROLE])
    removal = Run(removals_of(everything(), account, ("job",)), undo=True)
    place.iam.create_policy_version(PolicyArn=JOB, PolicyDocument=json.dumps(OTHER), SetAsDefault=True)
    removal.act(lambda _: None)
    assert {each.verb for each in removal.left} == {"leave"}
    attached = place.iam.list_attached_role_policies(RoleName=NAME)["AttachedPolicies"]
    assert [each["PolicyName"] for each in attached] == ["smssh-job"]
    # Detached by hand, nothing is left of it but the mark, which goes.
    place.iam.detach_role_policy(RoleName=NAME, PolicyArn=JOB)
    run = undo(place.account(), "job")
    assert [each.what for each in run.done] == [f"attachment of smssh-job to the role {NAME}"]


@pytest.mark.parametrize("operation", ["PutRolePolicy", "AttachRolePolicy", "TagPolicy"])
def test_what_iam_does_not_know_yet_is_waited_for(place: Place, operation: str) -> None:
    """Its changes are eventually consistent."""
    fault = Fault(f"iam:{operation}", "NoSuchEntity", "not found", 404, times=3)
    place.service.sessions.faults.add(fault)
    waits: list[float] = []
    account = place.account()
    account._sleep = waits.append
    apply(account)
    assert fault.happened == len(waits) == 3


@pytest.mark.parametrize("operation", ["DeletePolicy", "DeleteRole"])
def test_a_removal_that_iam_holds_for_used_is_tried_again(
    place: Place, account: Account, operation: str
) -> None:
    before = place.state()
    apply(account)
    place.service.sessions.faults.add(Fault(f"iam:{operation}", "DeleteConflict", "in use", 409, times=2))
    undo(account)
    assert place.state() == before


# ------------------------------------------------------------------------------------------------ the tier


def test_a_tier_that_was_on_before_stays_on(place: Place, account: Account) -> None:
    place.service.sessions.tier = "advanced"
    before = place.state()
    change = apply(account, parts=("tier",)).changes[0]
    assert (change.verb, change.why) == ("keep", "it is on already")
    assert undo(account, "tier").changes == []
    assert place.state() == before


BOTH = ("smssh", "vision")


def tier(account: Account, act: Any, name: str) -> None:
    """Apply or undo the tier of the setup with this name."""
    act(account, parts=("tier",), name=name) if act is apply else act(account, "tier", name=name)


@pytest.mark.parametrize("was", ["Default", "Customized"])
@pytest.mark.parametrize("first_out", BOTH)
def test_two_setups_share_the_tier_and_the_last_one_goes_back(
    place: Place, account: Account, first_out: str, was: str
) -> None:
    place.service.sessions.tier_set_by = "" if was == "Default" else "arn:aws:iam::123456789012:user/ann"
    before = place.state()
    for name in BOTH:
        tier(account, apply, name)
    assert set(verbs(wanted(account, "tier", name="vision")).values()) == {"keep"}
    (last,) = {*BOTH} - {first_out}
    tier(account, undo, first_out)
    assert place.service.sessions.tier == "advanced"
    tier(account, undo, last)
    assert place.state() == before


@pytest.mark.parametrize("last", BOTH)
@pytest.mark.parametrize("act", ["apply", "undo"])
def test_a_setup_that_is_killed_at_any_call_keeps_the_tier_for_another_and_the_last_goes_back(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch, act: str, last: str
) -> None:
    before = place.state()
    what = apply if act == "apply" else undo
    (other,) = {*BOTH} - {last}
    killed = 0

    def both() -> None:
        for name in BOTH:
            tier(account, apply, name)

    def prepared() -> None:
        """One setup is there; the other is made, or there too and undone."""
        failing.number, number = None, failing.number
        tier(account, apply, last) if what is apply else both()
        failing.number, failing.made = number, 0
        tier(account, what, other)

    failing = Failing(monkeypatch, KeyboardInterrupt())
    for number, after in failing.every_call(prepared):
        killed += 1
        if number % 2 == after:
            tier(account, what, other)
        assert place.service.sessions.tier == "advanced", (number, after)
        tier(account, undo, other)
        assert place.service.sessions.tier == "advanced", (number, after)
        tier(account, undo, last)
        assert place.state() == before, (number, after)
    assert killed >= 5


def test_a_setup_that_comes_while_the_tier_is_switched_off_under_it_says_so(
    place: Place, account: Account
) -> None:
    """It was shown that it would only note its use."""
    tier(account, apply, "smssh")
    run = wanted(account, "tier", name="vision")
    assert verbs(run) == {"parameter /smssh/setup/vision/tier": "make"}
    tier(account, undo, "smssh")
    before = place.state()
    with pytest.raises(SmsshError, match="service setting advanced tier has changed since it was shown"):
        run.act(lambda _: None)
    assert place.state() == before


def test_a_tier_that_somebody_has_set_since_a_setup_is_not_shared(place: Place, account: Account) -> None:
    tier(account, apply, "smssh")
    place.service.sessions.tier_set_by = "arn:aws:iam::123456789012:user/ann"
    (change,) = apply(account, parts=("tier",), name="vision").changes
    assert (change.verb, change.why) == ("keep", "it is on already")


def test_the_record_of_another_setup_that_cannot_be_read_is_named_but_keeps_the_tier(
    place: Place, account: Account
) -> None:
    place.service.sessions.tier = "advanced"
    place.ssm.put_parameter(Name="/smssh/setup/alpha/tier", Value="?", Type="String")
    place.ssm.put_parameter(Name="/smssh/setup/alpha/tier/other", Value="?", Type="String")
    with pytest.raises(SmsshError, match="the parameter /smssh/setup/alpha/tier does not say"):
        wanted(account, "tier")
    place.service.sessions.tier = "standard"
    tier(account, apply, "smssh")
    assert found(wanted(account, "tier", name="vision"), "parameter /smssh/setup/vision/tier").verb == "make"
    tier(account, undo, "smssh")
    assert place.service.sessions.tier == "advanced"


def test_many_setups_share_the_tier(place: Place, account: Account) -> None:
    """More than one page of their records."""
    before = place.state()
    names = [f"team{number}" for number in range(12)]
    for name in names:
        tier(account, apply, name)
    for name in names[:-1]:
        tier(account, undo, name)
        assert place.service.sessions.tier == "advanced"
    tier(account, undo, names[-1])
    assert place.state() == before


def test_a_tier_that_somebody_else_has_set_since_stays(place: Place, account: Account) -> None:
    apply(account, parts=("tier",))
    place.service.sessions.tier_set_by = "arn:aws:iam::123456789012:user/ann"
    change = undo(account, "tier").changes[0]
    assert (change.verb, change.why) == ("leave", "arn:aws:iam::123456789012:user/ann has set it since")
    assert place.service.sessions.tier == "advanced"
    place.service.sessions.tier = "standard"
    (change,) = undo(account).done
    assert change.what == "parameter /smssh/setup/smssh/tier"


def test_a_tier_that_nodes_need_stays_unless_it_is_named(place: Place, account: Account) -> None:
    before = place.state()
    apply(account, parts=("tier",))
    add_node(place.service, "job")
    change = undo(account).changes[0]
    assert change.verb == "leave"
    assert "ends Session Manager on one hybrid node, 0 not of smssh" in change.why
    assert place.service.sessions.tier == "advanced"
    place.service.sessions.faults.add(
        Fault("ssm:DescribeInstanceInformation", "AccessDeniedException", times=2)
    )
    assert "an unknown number of hybrid nodes" in undo(account).changes[0].why
    assert verbs(undo(account, "tier")) == {"service setting advanced tier": "remove"}
    assert place.state() == before


def test_a_record_that_cannot_be_read_is_named(place: Place, account: Account) -> None:
    place.ssm.put_parameter(Name="/smssh/setup/smssh/tier", Value="?", Type="String")
    for look in (lambda: wanted(account, "tier"), lambda: undo(account)):
        with pytest.raises(SmsshError, match="the parameter /smssh/setup/smssh/tier does not say"):
            look()


def refusing(account: Account, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """IAM denies one call."""
    call = account.call

    def refused(service: str, name: str, **arguments: Any) -> Any:
        if name == operation:
            raise SmsshError("denied", reference="access-denied")
        return call(service, name, **arguments)

    monkeypatch.setattr(account, "call", refused)


def test_what_is_done_by_hand_after_a_refusal_is_kept_by_an_undo(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a change is written before it, and taken back if the change is refused."""
    with monkeypatch.context() as patch:
        refusing(account, patch, "attach_role_policy")
        with pytest.raises(SmsshError):
            apply(account, parts=("job",), job_roles=[ROLE])
    place.iam.attach_role_policy(RoleName=NAME, PolicyArn=JOB)
    assert verbs(undo(place.account())) == {"policy smssh-job": "leave"}
    attached = place.iam.list_attached_role_policies(RoleName=NAME)["AttachedPolicies"]
    assert [each["PolicyName"] for each in attached] == ["smssh-job"]


def test_a_tier_that_is_switched_on_by_hand_after_a_refusal_stays(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refusing(account, patch, "update_service_setting")
        with pytest.raises(SmsshError):
            apply(account, parts=("tier",))
    place.service.sessions.tier = "advanced"
    assert undo(place.account(), "tier").changes == []
    assert place.service.sessions.tier == "advanced"


def test_more_job_roles_than_can_be_noted_are_refused_over_several_runs_too(
    place: Place, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed_policies, "MOST_ROLES", 1)
    apply(account, parts=("job",), job_roles=[ROLE])
    before = place.state()
    (refused,) = wanted(place.account(), "job", job_roles=["plain"]).refused
    assert "1 job roles at most" in refused.why
    assert place.state() == before
