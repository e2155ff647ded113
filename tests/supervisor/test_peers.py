"""Hosts of large jobs, as far as they ask each other: a simulated clock, the emulator's nodes, every call counted."""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from smssh_plugin.container.ssm_calls import Refused
from smssh_plugin.hooks import hosts as tags
from smssh_plugin.hooks.hosts import Hosts
from smssh_plugin.hookspecs import Context, HostAnswer, HostQuestion, HostState, Job, hookimpl
from smssh_plugin.local.sessions.nodes import Nodes
from smssh_plugin.plugins import Plugins
from smssh_plugin.settings import load
from smssh_plugin.supervisor import peers as module
from smssh_plugin.supervisor.main import BUILTIN
from smssh_plugin.supervisor.peers import Peers

START = 1_800_000_000.0
"""When a simulation begins, in seconds since the epoch."""


class Cloud:
    """Systems Manager for the hosts of a simulation: the emulator's nodes, with a rate if there is to be one."""

    def __init__(self, rate: float | None = None) -> None:
        self.time = START
        self.rate = rate
        self.calls: list[tuple[float, str]] = []
        self.throttled = 0
        self.nodes = Nodes(clock=lambda: self.time)
        self._left, self._filled = 0.0, START

    def clock(self) -> float:
        return self.time

    def node(self, host: str, *, role: str = "Nodes", job: str = "job", **more: str) -> str:
        """A node that is online, for as long as a simulation takes."""
        given = {"SMSSHJob": job, "SMSSHKind": "training", "SMSSHHost": host, **more}
        made = self.nodes.create_activation(
            {"IamRole": role, "Tags": [{"Key": key, "Value": value} for key, value in given.items()]}
        )
        body = {**made, "PublicKey": "k", "Fingerprint": "f"}
        node = self.nodes.register(body)["InstanceId"]
        self.nodes.nodes[node].pinged = START + 1e6
        return str(node)

    def count(self, operation: str) -> None:
        """One call; refused where there is a rate, and it is exceeded."""
        if self.rate is not None:
            self._left = min(self.rate, self._left + (self.time - self._filled) * self.rate)
            self._filled = self.time
            if self._left < 1.0:
                self.throttled += 1
                raise Refused(operation, "ThrottlingException", "Rate exceeded", 400, "")
            self._left -= 1.0
        self.calls.append((self.time, operation))

    def describe_instance_information(self, **body):
        self.count("DescribeInstanceInformation")
        assert all(each["Key"].startswith("tag") for each in body["Filters"]), (
            "Tag filters can't be combined with other filter types"
        )
        assert all(1 <= len(each["Values"]) <= 100 for each in body["Filters"])
        return self.nodes.describe(body)

    def list_tags_for_resource(self, **body):
        self.count("ListTagsForResource")
        return self.nodes.list_tags(body)

    def add_tags_to_resource(self, **body):
        self.count("AddTagsToResource")
        return self.nodes.add_tags(body)

    def busiest(self, since: float) -> int:
        """Calls in the busiest second."""
        return max(Counter(int(when) for when, _ in self.calls if when >= since).values(), default=0)


class Hooks:
    """The hooks of one host, without pluggy: there are a thousand."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts

    def tell_hosts(self, context, own):
        return self.hosts.tell(own)

    def ask_hosts(self, context, question):
        return self.hosts.ask(question)

    def other_hosts(self, context):
        return self.hosts.listed()


class Host:
    """What the supervisor of one host does with what it learns."""

    def __init__(self, cloud: Cloud, name: str, names: tuple[str, ...], folder, **environ: str) -> None:
        self.name = name
        self.cloud = cloud
        settings = load({"SMSSH_HOLD": "failure", "SMSSH_ROLE": "arn:aws:iam::1:role/Nodes", **environ})
        self.context = Context(settings, Job("job", "training", name, hosts=names), folder, {}, "/", "")
        told = {"SMSSHPhase": "running", "SMSSHCourse": "1"} if settings.hold_hosts == "all" else {}
        self.node = cloud.node(name, **told)
        self.hosts = Hosts(self.context, cloud, self.node, cloud.clock)
        self.peers = Peers(self.context, Hooks(self.hosts), self.decide, clock=cloud.clock, threaded=False)
        self.followed: float | None = None
        self.state: HostState | None = None
        self.held = self.over = False
        self.stays_since: float | None = None
        self.changed = True

    def run(self) -> None:
        self.peers.begin(1)
        self.changed = True

    def fail(self) -> None:
        self.peers.tell(state="failed", exit_code=1, failed=self.cloud.time)
        self.peers.tell(state="held")
        self.peers.hold()
        self.held = self.changed = True

    def connect(self, on: bool = True) -> None:
        self.peers.tell(connected=on)
        self.changed = True

    def release(self, chosen: int | None, decision: str = "release", *, followed: bool = False) -> None:
        self.peers.tell(state="released", connected=False, decision=decision, chosen=chosen)
        self.peers.hold(False)
        self.held = False
        if followed:
            self.stays_since = -math.inf
        else:
            self.stays_since = self.peers.linger()
        self.changed = True

    def retry(self, attempt: int) -> None:
        self.peers.tell(
            state="running", attempt=attempt, exit_code=None, failed=0.0, first=False, decision="retry"
        )
        self.peers.hold(False)
        self.held = False
        self.changed = True

    def decide(self) -> None:
        self.state = self.peers.decision
        if self.followed is None:
            self.followed = self.cloud.time
            if self.state.state == "released":
                self.release(self.state.chosen, self.state.decision, followed=True)
            else:
                self.retry(self.state.attempt)

    def turn(self) -> float:
        self.changed = False
        if self.over:
            return math.inf
        due = self.peers.turn()
        if self.stays_since is None:
            return due
        if self.stays_since == -math.inf:
            self.peers.turn()  # it tells what it can, and does not stay for it
        elif not self.peers.all_have_followed(self.stays_since):
            return due
        self.over = True
        self.cloud.nodes.deregister(self.node)
        return math.inf


class World:
    """A job's hosts, whose turns come when they are due."""

    def __init__(self, folder, count: int, rate: float | None = None, **environ: str) -> None:
        self.cloud = Cloud(rate)
        names = tuple(f"algo-{number}" for number in range(1, count + 1))
        self.hosts = [Host(self.cloud, name, names, folder, **environ) for name in names]
        self._heap = [(START, number) for number in range(count)]
        self._due = [START] * count

    def until(self, seconds: float) -> None:
        """Let time pass, up to so many seconds after the start."""
        end = START + seconds
        self._wake()
        while self._heap and self._heap[0][0] <= end:
            when, number = heapq.heappop(self._heap)
            if when != self._due[number]:
                continue
            self.cloud.time = max(self.cloud.time, when)
            due = max(self.hosts[number].turn(), self.cloud.time + 1e-6)
            self._push(number, due)
            self._wake()
        self.cloud.time = end

    def _wake(self) -> None:
        for number, host in enumerate(self.hosts):
            if host.changed:
                host.changed = False
                self._push(number, self.cloud.time)

    def _push(self, number: int, due: float) -> None:
        self._due[number] = due
        if due < math.inf:
            heapq.heappush(self._heap, (due, number))


@pytest.fixture(autouse=True)
def _same_each_time(monkeypatch):
    """Numbers that threads of other tests, which the process may still have, take none of."""
    monkeypatch.setattr(module, "random", random.Random(1))


def held(tmp_path, count, *, rate=None, **environ):
    """A job whose hosts have all failed within two seconds, and are held."""
    world = World(tmp_path, count, rate, **environ)
    for host in world.hosts:
        host.run()
    for part in range(4):
        world.until(10 + part / 2)
        for host in world.hosts[part::4]:
            host.fail()
    return world


@pytest.mark.parametrize("count", [2, 40, 1000])
def test_any_number_of_hosts_follows_a_release_within_30_seconds(tmp_path, count) -> None:
    world = held(tmp_path, count, SMSSH_HOLD_HOSTS="all")
    world.until(120)
    cloud, before = world.cloud, len(world.cloud.calls)
    world.until(180)
    waiting = len(cloud.calls) - before
    before = len(cloud.calls)
    world.hosts[count // 2].release(0)
    world.until(240)
    others = [host for host in world.hosts if host is not world.hosts[count // 2]]
    assert all(host.state is not None and host.state.chosen == 0 for host in others)
    assert max(host.followed for host in others) - (START + 180) <= 30
    # None of them stays longer than the others need.
    assert not cloud.nodes.nodes
    following = len(cloud.calls) - before
    print(
        f"{count} hosts: {waiting} calls a minute held, {following} to follow, {cloud.busiest(START)} a second"
    )
    assert waiting <= 15 * count
    assert following <= 10 * count
    assert waiting / 60 <= max(module.BURST_PER_SECOND + module.CALLS_PER_SECOND, count)


def test_calls_per_host_do_not_grow_with_hosts(tmp_path) -> None:
    def calls(count):
        world = held(tmp_path, count, SMSSH_HOLD_HOSTS="all")
        world.until(120)
        world.hosts[0].release(None)
        world.until(240)
        return len(world.cloud.calls) / count

    assert calls(400) <= calls(4)


def test_any_number_of_running_hosts_follows_a_retry_within_30_seconds(tmp_path) -> None:
    world = World(tmp_path, 1000, SMSSH_HOLD_HOSTS="all")
    for host in world.hosts:
        host.run()
    world.until(60)
    # Its hosts have said at registration that they run.
    assert "AddTagsToResource" not in {operation for _, operation in world.cloud.calls}
    world.hosts[7].fail()
    world.until(70)
    world.hosts[7].retry(2)
    world.until(100)
    assert all(host.followed is not None for host in world.hosts if host is not world.hosts[7])
    assert all(host.state.attempt == 2 for host in world.hosts if host is not world.hosts[7])


def test_with_a_thousand_hosts_one_that_is_connected_keeps_all(tmp_path) -> None:
    world = held(tmp_path, 1000)
    world.hosts[500].connect()
    ends = 600.0
    world.until(ends)
    others = [host for host in world.hosts if host is not world.hosts[500]]
    before = len(world.cloud.calls)
    # Each is at its deadline, and wants to know it anew.
    for second in range(0, 40, 4):
        for host in others:
            assert not host.peers.nobody_connected(second)
            host.changed = True
        world.until(ends + second + 4)
    assert all(host.peers.somebody_connected() for host in others)
    assert world.cloud.busiest(START + ends) <= 2 * module.BURST_PER_SECOND
    assert len(world.cloud.calls) - before <= 3 * 1000
    world.hosts[500].connect(False)
    world.until(700)
    told = set()
    for second in range(0, 40, 4):
        for host in others:
            if host.name not in told and host.peers.nobody_connected(second):
                told.add(host.name)
            host.changed = True
        world.until(700 + second + 4)
    assert len(told) == len(others)


def phase(world, number):
    """What the others can learn of a host."""
    node = world.hosts[number].node
    tags = world.cloud.nodes.list_tags({"ResourceType": "ManagedInstance", "ResourceId": node})["TagList"]
    return next((tag["Value"] for tag in tags if tag["Key"] == "SMSSHPhase"), None)


def test_throttled_nobody_gives_up_under_a_person(tmp_path) -> None:
    """AWS answers twice a second: what is not known is not nobody."""
    world = held(tmp_path, 200, rate=2.0)
    world.hosts[50].connect()
    world.until(300)
    # One try in six succeeds at most, and so does telling it.
    assert phase(world, 50) == "occupied"
    for second in range(120):
        for host in world.hosts:
            if host is not world.hosts[50]:
                assert not host.peers.nobody_connected(second)
                host.changed = True
        world.until(300 + second + 1)
    assert world.cloud.throttled > 100
    # And they do not ask in vain all the time: three times a minute at most, and one time to tell.
    before = world.cloud.throttled
    for second in range(60):
        for host in world.hosts:
            host.peers.nobody_connected(120 + second)
            host.changed = True
        world.until(421 + second)
    assert world.cloud.throttled - before <= 4 * 200
    world.hosts[50].connect(False)
    world.until(500)
    told = set()
    for second in range(0, 3600, 5):
        for host in world.hosts:
            if host.peers.nobody_connected(second):
                told.add(host.name)
            host.changed = True
        world.until(500 + second + 5)
        if len(told) == 200:
            break
    assert len(told) == 200


def test_throttled_a_decision_is_told_and_followed_all_the_same(tmp_path) -> None:
    """300 hosts at ten calls a second: what cannot be within 30 s is as soon as AWS lets it be; docs/holds.md."""
    world = held(tmp_path, 300, rate=10.0, SMSSH_HOLD_HOSTS="all")
    world.until(200)
    world.hosts[0].release(3)
    world.until(900)
    late = [host.followed - START - 200 for host in world.hosts[1:] if host.followed is not None]
    assert len(late) == 299
    assert {host.state.chosen for host in world.hosts[1:]} == {3}
    assert sum(late) / len(late) <= 300
    assert max(late) <= module.FOLLOW_LONGEST
    print(f"followed up to {max(late):.0f} s late, {world.cloud.throttled} calls throttled")


def test_those_that_failed_first_are_known_without_reading_all(tmp_path) -> None:
    world = World(tmp_path, 400)
    world.until(1)
    world.hosts[123].fail()
    world.until(3)
    for host in world.hosts:
        if host is not world.hosts[123]:
            host.fail()
    world.until(120)
    before = len(world.cloud.calls)
    listed = world.hosts[0].hosts.listed()
    assert [host for host, state in listed.items() if state.first] == ["algo-124"]
    assert len(world.cloud.calls) - before <= 2 + tags.LISTED_LEAST


# ------------------------------------------------------------------------------------------------- whose host it is


@pytest.fixture
def pair(tmp_path):
    return World(tmp_path, 2, SMSSH_HOLD_HOSTS="all", SMSSH_OWNER="ann")


def say(cloud, node, state, **more):
    """What a node's tags say that claims to be a host of the job."""
    text = {
        "SMSSHHold": tags.encode(state),
        "SMSSHPhase": state.phase,
        "SMSSHCourse": state.course,
        "SMSSHFirst": "-",
        **more,
    }
    cloud.nodes.add_tags(
        {
            "ResourceType": "ManagedInstance",
            "ResourceId": node,
            "Tags": [{"Key": key, "Value": value} for key, value in text.items()],
        }
    )


RELEASED = HostState("algo-2", "released", 1, 1, decision="release", chosen=0)
ASKED = HostQuestion(courses=("2", "released"), decides=True)


@pytest.mark.parametrize(
    ("host", "given", "why"),
    [
        ("algo-99", {}, "the job has no host 'algo-99'"),
        ("algo-1", {}, "this is algo-1"),
        ("algo-2", {"role": "Other"}, "its role is 'Other'"),
        ("algo-2", {"SSHOwner": "eve"}, None),
        ("algo-2", {"SSHOwner": ""}, None),
        ("algo-2", {"job": "another"}, None),
    ],
)
def test_nodes_that_are_no_host_of_the_job_are_ignored(tmp_path, caplog, host, given, why) -> None:
    cloud = Cloud()
    names = ("algo-1", "algo-2")
    one = Host(cloud, "algo-1", names, tmp_path, SMSSH_HOLD_HOSTS="all", SMSSH_OWNER="ann")
    own = {"SSHOwner": "ann", **given}
    foreign = cloud.node(host, **{key: value for key, value in own.items() if value})
    say(cloud, foreign, RELEASED)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert one.hosts.ask(ASKED) == HostAnswer()
            assert one.hosts.ask(HostQuestion(phases=("released",))) == HostAnswer()
        assert one.hosts.listed() == {}
    said = [record.getMessage() for record in caplog.records]
    assert said == (
        [] if why is None else [f"{foreign} claims to be a host of this job and is ignored: {why}"]
    )
    # The real one is heard all the same.
    say(cloud, cloud.node("algo-2", SSHOwner="ann"), RELEASED)
    if host != "algo-2" or why or given.get("SSHOwner") != "ann":
        assert one.hosts.ask(ASKED) == HostAnswer(RELEASED)


def test_without_an_owner_a_node_that_has_one_is_ignored(tmp_path, caplog) -> None:
    cloud = Cloud()
    one = Host(cloud, "algo-1", ("algo-1", "algo-2"), tmp_path, SMSSH_HOLD_HOSTS="all")
    say(cloud, cloud.node("algo-2", SSHOwner="eve"), RELEASED)
    with caplog.at_level(logging.WARNING):
        assert one.hosts.ask(ASKED) == HostAnswer()
    assert "its owner is 'eve'" in caplog.text
    say(cloud, cloud.node("algo-2"), RELEASED)
    assert one.hosts.ask(ASKED).host == RELEASED


def test_of_two_that_claim_one_host_neither_decides(tmp_path, caplog) -> None:
    cloud = Cloud()
    one = Host(cloud, "algo-1", ("algo-1", "algo-2"), tmp_path, SMSSH_HOLD_HOSTS="all")
    real, second = cloud.node("algo-2"), cloud.node("algo-2")
    for node in (real, second):
        say(cloud, node, HostState("algo-2", "held", connected=True))
    with caplog.at_level(logging.WARNING):
        for node in (real, second):
            say(cloud, node, RELEASED)
            for _ in range(2):
                assert one.hosts.ask(ASKED) == HostAnswer()
            assert one.hosts.listed() == {}
            say(cloud, node, HostState("algo-2", "held", connected=True))
    assert [record.getMessage() for record in caplog.records] == [
        "two online nodes claim to be algo-2 of this job: what they decide is not followed"
    ]
    # Who is connected there keeps the hold all the same.
    assert one.hosts.ask(HostQuestion(phases=("occupied",))).host.host == "algo-2"
    # What is left of an ended container goes offline.
    cloud.nodes.nodes[second].pinged = START - 3600
    say(cloud, real, RELEASED)
    assert one.hosts.ask(ASKED) == HostAnswer(RELEASED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "released",
        "released 1 1 0.000 0 release 0",
        "released 1 1 0.000 0 release 0 0 0",
        "rebooted 1 1 0.000 0 release 0 0",
        "released 1 1 0.000 0 reboot 0 0",
        "released 1 1 0.000 0 release 256 0",
        "released 1 1 0.000 0 release -1 0",
        "released 0 1 0.000 0 release 0 0",
        "released " + "9" * 30 + " 1 0.000 0 release 0 0",
        "released 1 " + "9" * 30 + " 0.000 0 release 0 0",
        "released 1 1 inf 0 release 0 0",
        "released 1 1 nan 0 release 0 0",
        "released 1 x 0.000 0 release 0 0",
    ],
)
def test_what_no_host_writes_is_not_followed(tmp_path, text) -> None:
    cloud = Cloud()
    one = Host(cloud, "algo-1", ("algo-1", "algo-2"), tmp_path, SMSSH_HOLD_HOSTS="all")
    say(cloud, cloud.node("algo-2"), RELEASED, SMSSHHold=text)
    assert one.hosts.ask(ASKED) == HostAnswer()


def test_the_tags_of_a_host_fit_what_they_say(tmp_path) -> None:
    cloud = Cloud()
    one, two = (Host(cloud, name, ("algo-1", "algo-2"), tmp_path) for name in ("algo-1", "algo-2"))
    states = [
        HostState("algo-2", "held", 3, 137, failed=12.5, connected=True, first=True),
        HostState("algo-2", "running", 2, decision="retry"),
        HostState("algo-2", "released", 2, 1, decision="expire"),
        HostState("algo-2", "released", 2, 1),
        RELEASED,
    ]
    for state in states:
        assert two.hosts.tell(state)
        for course in ("1", "2", "3", "released", "expired"):
            found = one.hosts.ask(HostQuestion(courses=(course,), decides=True)).host
            assert found == (state if state.course == course else None)
        assert (one.hosts.ask(HostQuestion(phases=("occupied",))).host is not None) == state.connected
        assert (one.hosts.ask(HostQuestion(first=3)).host is not None) == state.first
    assert one.hosts.listed() == {"algo-2": RELEASED}
    before = len(cloud.calls)
    assert two.hosts.tell(RELEASED)
    assert len(cloud.calls) == before, "nothing new to say"


# ------------------------------------------------------------------------------------------------- what can go wrong


def test_what_passes_is_unknown_and_what_does_not_is_raised(tmp_path) -> None:
    cloud = Cloud(rate=0.0)
    one = Host(cloud, "algo-1", ("algo-1", "algo-2"), tmp_path)
    assert not one.hosts.tell(RELEASED)
    assert one.hosts.ask(ASKED) == HostAnswer(known=False)
    cloud.count = lambda operation: (_ for _ in ()).throw(Refused(operation, "AccessDenied", "", 400, ""))
    for call in (lambda: one.hosts.tell(RELEASED), lambda: one.hosts.ask(ASKED)):
        with pytest.raises(Refused):
            call()


def test_a_network_that_never_answers_is_given_up_at_last(tmp_path) -> None:
    cloud = Cloud()
    one = Host(cloud, "algo-1", ("algo-1", "algo-2"), tmp_path)
    one.hosts.ask(ASKED)
    cloud.count = lambda operation: (_ for _ in ()).throw(ConnectionError(operation))
    assert one.hosts.ask(ASKED) == HostAnswer(known=False)
    cloud.time += tags.SILENT_SECONDS + 1
    with pytest.raises(ConnectionError):
        one.hosts.ask(ASKED)


class Listing:
    """A plugin that can list the others and no more."""

    def __init__(self, others):
        self.others = others
        self.told = []

    @hookimpl
    def smssh_other_hosts(self):
        return self.others

    @hookimpl
    def smssh_tell_hosts(self, own):
        self.told.append(own)
        return len(self.told) > 2


def alone(tmp_path, plugin, clock, **environ):
    plugins = Plugins([], entry_points=False)
    plugins.register(plugin, "plugin")
    job = Job("job", "training", "algo-1", hosts=("algo-1", "algo-2"))
    context = Context(load({"SMSSH_HOLD_HOSTS": "all", **environ}), job, tmp_path, {}, "/", "")
    return Peers(context, plugins, lambda: None, clock=clock, threaded=False)


def test_a_plugin_that_lists_hosts_is_enough(tmp_path) -> None:
    cloud = Cloud()
    plugin = Listing({"algo-2": HostState("algo-2", "held", connected=True)})
    one = alone(tmp_path, plugin, cloud.clock)
    one.tell(state="held", failed=START)
    one.hold()
    for _ in range(20):
        cloud.time = max(cloud.time, min(one.turn(), cloud.time + 60))
    assert one.somebody_connected()
    # What could not be told was told again.
    assert len(plugin.told) == 3
    plugin.others = {"algo-2": replace(RELEASED, chosen=5)}
    for _ in range(20):
        cloud.time = max(cloud.time, min(one.turn(), cloud.time + 60))
    assert one.decision.chosen == 5
    assert one.nobody_connected(120)
    plugin.others = None
    for _ in range(20):
        cloud.time = max(cloud.time, min(one.turn(), cloud.time + 60))
    assert one.nobody_connected(0)
    assert not one.others_go_on()


class Retried:
    """The other host, which is retried and succeeds after this one has asked what it decided, and before it asks
    whether it goes on."""

    def __init__(self):
        self.other = HostState("algo-2", "held", 2)

    @hookimpl
    def smssh_ask_hosts(self, question):
        answer = HostAnswer(self.other if question.fits(self.other) else None)
        if question.decides:
            self.other = replace(self.other, state="succeeded", attempt=3, decision="retry")
        return answer


@pytest.mark.parametrize("late", [0.0, 120.0])
def test_a_host_that_was_retried_and_has_succeeded_is_followed_before_it_counts_as_gone(
    tmp_path, late
) -> None:
    cloud, plugin = Cloud(), Retried()
    one = alone(tmp_path, plugin, cloud.clock)
    one.begin(2)
    one.tell(state="succeeded", exit_code=0)
    cloud.time += late
    one.hold()
    while one.others_go_on() and one.decision is None:
        cloud.time = max(cloud.time, one.turn())
    assert one.decision == plugin.other


def test_nothing_is_told_of_a_node_that_is_being_deregistered(pair, monkeypatch) -> None:
    """Its owner is gone with its tags, so that IAM denies it."""
    host = pair.hosts[0]
    hosts = host.hosts
    assert hosts.tell(HostState("algo-1", "held", 1, 1))
    told = len(pair.cloud.calls)
    during = Refused("AddTagsToResource", "AccessDeniedException", "not authorized", 400, "")

    def denied(**_):
        monkeypatch.setattr(tags._State, "hosts", hosts)
        order = [each.plugin_name for each in Plugins(BUILTIN)._manager.hook.smssh_stop.get_hookimpls()]
        assert order.index("ssm") < order.index("hosts")  # the last one is called first
        tags.smssh_stop()
        raise during

    monkeypatch.setattr(pair.cloud, "add_tags_to_resource", denied)
    assert hosts.tell(HostState("algo-1", "released", 1, 1))
    monkeypatch.undo()
    assert hosts.tell(HostState("algo-1", "released", 2, 1))
    assert len(pair.cloud.calls) == told


def test_what_is_denied_while_the_node_is_there_is_an_error(pair, monkeypatch) -> None:
    during = Refused("AddTagsToResource", "AccessDeniedException", "not authorized", 400, "")

    def denied(**_):
        raise during

    monkeypatch.setattr(pair.cloud, "add_tags_to_resource", denied)
    with pytest.raises(Refused):
        pair.hosts[0].hosts.tell(HostState("algo-1", "held", 1, 1))
