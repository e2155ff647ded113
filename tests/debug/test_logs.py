"""The logs of an execution, followed with one call for a log group."""

from __future__ import annotations

import contextlib
import itertools
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from smssh_plugin.debug import logs
from smssh_plugin.errors import SmsshError
from tests.client.nodes import use

from .test_watch import Session

if TYPE_CHECKING:
    from tests.local.service_harness import Service

GROUP = "/aws/sagemaker/TrainingJobs"


class World:
    """Log streams of an execution's jobs, and what follows them."""

    def __init__(self, service: Service) -> None:
        self._client = service.client("logs")
        self.session = Session()
        self.logs = logs.Logs(self.session, "abc")
        self.now = time.time()

    def write(
        self, job: str, *lines: str, host: str = "algo-1", began: float = 0.0, ago: float = 0.0
    ) -> None:
        """Write lines `ago` seconds before now, into a stream that began at `began`, or a moment ago."""
        stream = f"{job}/{host}-{int(began or self.now)}"
        for call, arguments in (
            (self._client.create_log_group, {}),
            (self._client.create_log_stream, {"logStreamName": stream}),
        ):
            with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
                call(logGroupName=GROUP, **arguments)
        at = int((time.time() - ago) * 1000)
        events = [{"timestamp": at, "message": line} for line in lines]
        self._client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)

    def look(self) -> None:
        self.logs._next = 0.0
        self.logs.look(["training"])


@pytest.fixture
def world(service: Service, monkeypatch: pytest.MonkeyPatch) -> World:
    use(service, monkeypatch)
    return World(service)


def test_one_call_reads_the_logs_of_all_jobs_and_hosts(world: World) -> None:
    jobs = [f"pipelines-abc-Step{number}-Ab{number}" for number in range(5)]
    for job in jobs:
        for host in ("algo-1", "algo-2"):
            world.write(job, f"{host} of {job}", "the end", host=host)
    world.write("pipelines-other-Step1-xy", "another execution's")
    world.look()
    assert world.session.calls == ["filter_log_events"]
    world.session.calls.clear()
    assert [world.logs.tail("training", job.lower()) for job in jobs] == [
        [f"algo-1 of {job}", "the end"] for job in jobs
    ]
    assert set(world.session.calls) == {"filter_log_events"}
    rings = world.logs._groups["training"].rings
    assert sorted({name.partition("/")[0] for name in rings}) == jobs


def test_the_last_line_is_there_though_no_look_has_seen_it(world: World) -> None:
    job = "pipelines-abc-Train-Ab"
    world.write(job, "first")
    world.look()
    world.write(job, "last words")
    assert world.logs.tail("training", job) == ["first", "last words"]
    assert world.logs.tail("training", job, 1) == ["last words"]


def test_lines_that_were_read_are_not_read_twice(world: World) -> None:
    job = "pipelines-abc-Train-Ab"
    for number in range(5):
        world.write(job, f"line {number}")
        world.look()
    world.look()
    assert world.logs.tail("training", job) == [f"line {number}" for number in range(5)]


def test_a_job_that_has_a_name_of_its_own_is_asked_for_by_it(world: World) -> None:
    world.write("mine-abc-Xy", "named otherwise")
    world.look()
    assert world.logs.tail("training", "mine-abc-Xy") == ["named otherwise"]
    assert world.session.calls == ["filter_log_events", "describe_log_streams", "get_log_events"]


def test_what_was_written_before_it_is_followed_is_there_as_well(world: World) -> None:
    """Smssh debug was started again: the beginning of the stream is older than what is followed."""
    job = "pipelines-abc-Train-Ab"
    world.write(job, "hours ago", began=world.now - 7200, ago=7000)
    world.look()
    world.write(job, "now", began=world.now - 7200)
    assert world.logs.tail("training", job) == ["hours ago", "now"]
    ended = "pipelines-abc-Prepare-Ab"
    world.write(ended, "ended before", began=world.now - 7200, ago=7000)
    assert world.logs.tail("training", ended) == ["ended before"]


def test_pages_are_read_one_a_look_and_memory_is_bounded(world: World) -> None:
    job = "pipelines-abc-Train-Ab"
    for _ in range(3):
        world.write(job, *(f"{'x' * 5000}{number}" for number in range(150)))
    world.session.calls.clear()
    for _ in range(3):
        world.look()
    assert world.session.calls == ["filter_log_events"] * 3
    (ring,) = world.logs._groups["training"].rings.values()
    assert sum(map(len, ring.lines)) <= logs.STREAM_LIMIT
    assert world.logs.tail("training", job)[-1].endswith("149")
    for number in range(200):
        world.write(job, f"{number}")
        if not number % 40:
            world.look()
    world.look()
    assert world.logs.tail("training", job) == [str(number) for number in range(160, 200)]


def test_a_log_that_is_written_faster_than_it_is_read_is_followed_at_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LAG_SECONDS", -1.0)  # whatever was not read in one call is too old
    job = "pipelines-abc-Train-Ab"
    world.write(job, *(f"{'x' * 5000}{number}" for number in range(600)), ago=30)
    world.look()
    world.write(job, "the end")
    world.look()
    (ring,) = world.logs._groups["training"].rings.values()
    assert list(ring.lines) == ["the end"]
    assert len(world.logs.tail("training", job)) == logs.LINES  # of which the service is asked


def test_jobs_that_succeeded_are_forgotten(world: World) -> None:
    world.write("pipelines-abc-Train-Ab", "a")
    world.write("pipelines-abc-Score-Ab", "b")
    world.look()
    world.logs.forget(["PIPELINES-abc-Train-ab"])
    assert [name.partition("/")[0] for name in world.logs._groups["training"].rings] == [
        "pipelines-abc-Score-Ab"
    ]


def test_who_may_not_read_logs_is_refused_once(world: World) -> None:
    world.session.forbidden = "filter_log_events"
    for _ in range(3):
        world.look()
    assert world.session.calls == ["filter_log_events"]
    world.write("pipelines-abc-Train-Ab", "still")
    assert world.logs.tail("training", "pipelines-abc-Train-Ab") == ["still"]


def test_where_cloudwatch_does_not_answer_it_is_asked_less_and_less_often(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = [1000.0], [0.0]
    stand_in = SimpleNamespace(monotonic=lambda: clock[0], time=time.time)

    def away(service: str, operation: str, **_: Any) -> dict[str, Any]:
        del service, operation
        asked.append(clock[0])
        error = SmsshError("AWS cannot be reached")
        error.passing = True
        raise error

    monkeypatch.setattr(logs, "time", stand_in)
    monkeypatch.setattr(world.session, "call_once", away)
    for _ in range(4000):
        world.logs.look(["training", "processing"])
        clock[0] += 1
    pauses = [round(late - early) for early, late in itertools.pairwise(asked[1:])]
    assert pauses[:7] == [10, 20, 40, 80, 160, 320, 600]
    assert set(pauses[7:]) == {600}


def test_the_ends_of_many_logs_take_one_call_for_a_group(world: World) -> None:
    jobs = [f"pipelines-abc-Step{number}-Ab{number}" for number in range(30)]
    world.look()
    for job in jobs:
        world.write(job, f"the end of {job}")
    world.session.calls.clear()
    world.logs.refresh(["training"])
    assert [world.logs.last("training", job) for job in jobs] == [[f"the end of {job}"] for job in jobs]
    assert world.session.calls == ["filter_log_events"]


def test_a_group_that_is_made_later_is_read_then(world: World) -> None:
    world.look()
    world.write("pipelines-abc-Train-Ab", "a")
    assert world.logs.tail("training", "pipelines-abc-Train-Ab") == ["a"]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"logStreamNames": ["a"], "logStreamNamePrefix": "a"}, "Only one of"),
        ({"nextToken": "x"}, "nextToken is invalid"),
        ({"limit": 10_001}, "10000"),
    ],
)
def test_the_emulator_refuses_what_cloudwatch_refuses(
    world: World, service: Service, wrong: dict[str, Any], complaint: str
) -> None:
    world.write("a", "1")
    client = service.client("logs")
    with pytest.raises((ClientError, ParamValidationError), match=complaint):
        client.filter_log_events(logGroupName=GROUP, **wrong)


def test_the_emulators_pages_meet_without_a_gap(world: World, service: Service) -> None:
    for host in ("algo-1", "algo-2"):
        world.write("a", *(f"{host} {number}" for number in range(5)), host=host)
    world.write("b", "no")
    client = service.client("logs")
    found: list[str] = []
    more: dict[str, Any] = {}
    while True:
        answer = client.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="a/", limit=3, **more)
        assert len(answer["events"]) <= 3
        found += [event["message"] for event in answer["events"]]
        if not answer.get("nextToken"):
            break
        more = {"nextToken": answer["nextToken"]}
    assert sorted(found) == sorted(f"{host} {number}" for host in ("algo-1", "algo-2") for number in range(5))
