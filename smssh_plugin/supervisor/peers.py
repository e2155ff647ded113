"""The hosts of one job as far as holds go: which failed first, which wait for others, and one decision for all.

Hosts can rely on no way between them but AWS; what they tell each other goes through the hooks `smssh_tell_hosts` and
`smssh_ask_hosts`. No host reads what all the others say: it asks whether there is one that has decided something, one
where somebody is connected, one that goes on. So the calls of a job grow with its hosts and not with their square, and
each of many hosts asks less often, within FOLLOW_SECONDS for what is to be followed.

A host that fails and is held tells it, so that each report can say which host was first. While somebody is connected to
one host that is held, the others do not give up: nobody gives up before an answer that is as new as the deadline. A
question that is throttled has no answer, and the hold goes on, until its longest time.

With `SMSSH_HOLD_HOSTS=all` also:

* A host whose entry point has succeeded stays, held at `end`, while another runs or is held. (SageMaker's job ends
  with its last host anyway.)
* What a person, or a deadline, decides on one host holds for all. Before a retry, an attempt that still runs on
  another host is ended: it waits for ranks that are gone. Where somebody is connected, no other host's deadline counts.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Callable

from ..hookspecs import HostAnswer, HostQuestion, HostState

if TYPE_CHECKING:
    from typing import Mapping

    from ..hookspecs import Context
    from ..plugins import Plugins

__all__ = ["Peers"]

LOOK_SECONDS = 10.0
"""How often a question is asked by each of a few hosts; a fifth of SMSSH_HOLD_SECONDS where that is less, and 1 s at
least."""
LOOK_LONGEST = 25.0
"""How often the others' decisions are asked for at least, so that any number of hosts follows in FOLLOW_SECONDS."""
CALLS_PER_SECOND = 10.0
"""Of all hosts of a job together, for one question, as long as LOOK_LONGEST allows it. AWS does not publish the rate of
DescribeInstanceInformation."""
BURST_PER_SECOND = 40.0
"""Of all hosts of a job together, where they have reason to ask in the same moment."""
FOLLOW_SECONDS = 30.0
"""How long a host stays at least for the others to learn what was decided: its tags go with it."""
FOLLOW_LONGEST = 600.0
"""How long it stays at most where AWS has throttled what this host asked, and so what others ask."""
BACK_OFF = 3
"""How often the time between two attempts is doubled while AWS throttles."""
TELL_LONGEST = 20.0
"""Seconds between two attempts to tell a decision or that somebody is connected, at most, or what few hosts tell."""
BLIND_LIMIT = 3
"""Questions in a row that cannot be asked before the others count as gone."""
BLIND_SECONDS = 60.0
"""How often it is tried from then on."""
REPORT_LIMIT = 5.0
"""Seconds that a report waits for what the others have told."""
LIST_FEW = 10
"""Hosts of a job at most whose list is kept up to date without being asked for."""
LIST_MANY = 20
"""From more hosts on, reports of a failure do not list the others when it happens: all may fail in one moment."""
LIST_OLD = 90.0
"""Seconds after which a list says nothing of who is held now."""
CLAIMS_MOST = 3
"""Hosts that a list of many has at least: if as many say that they failed first, there may be more."""
AHEAD = 97
"""Attempts that others may be ahead; a question names 100 values at most."""

GOES_ON = ("running", "failed", "held", "occupied")
WAITS = ("occupied", "held", "succeeded")

_log = logging.getLogger("smssh.peers")


class _Asked:
    """A question that is repeated: when it is due, and what the last answer was."""

    def __init__(self) -> None:
        self.wanted = False
        self.due = 0.0
        self.asked = -math.inf
        """When the last answer was asked for."""
        self.answer: HostAnswer | None = None
        self.failures = 0
        self.demanded = False

    @property
    def found(self) -> bool:
        """Whether there was such a host, by the last answer."""
        return self.answer is not None and self.answer.host is not None


class Peers:
    """What this host tells, and what it knows of the others.

    Args:
        context: the supervisor's context.
        plugins: the hooks.
        changed: called in a thread of this object's if there is a `decision` to follow.
        clock: a clock in seconds that nobody sets.
        threaded: whether a thread does what is due; else the caller calls `turn`.
    """

    def __init__(
        self,
        context: Context,
        plugins: Plugins,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        threaded: bool = True,
    ) -> None:
        self._context = context
        self._plugins = plugins
        self._on_change = changed
        self._clock = clock
        self._threaded = threaded
        self._lock = threading.Condition()
        self._own = HostState(context.job.host, "running")
        self._told = self._own
        """What the others take a host for that has told nothing."""
        self._tell_due = -math.inf
        self._tell_failures = 0
        self._claimed = 0
        """The last attempt whose failure is compared with the others'."""
        self._course, self._presence, self._progress, self._followers = (_Asked() for _ in range(4))
        self._decision: HostState | None = None
        self._succeeded = -math.inf
        self._blind = 0
        self._throttled = -math.inf
        """When an answer was not known, the last time."""
        self._begun = False
        self._holding = False
        self._lingering = False
        self._started = not threaded
        self._stirred = False
        self._others: Mapping[str, HostState] | None = None
        self._listed = -math.inf
        self._lister: threading.Thread | None = None
        self._thread: threading.Thread | None = None

    @property
    def several(self) -> bool:
        """Whether the job has other hosts at all."""
        return len(self._context.job.hosts) > 1

    @property
    def all(self) -> bool:
        """Whether the hosts are held together."""
        return self.several and self._context.settings.hold_hosts == "all"

    @property
    def decision(self) -> HostState | None:
        """A host whose attempt or release this host has yet to follow, by the last answer."""
        with self._lock:
            return self._decision

    # ---------------------------------------------------------------------------- what this host says

    def tell(self, **changes: Any) -> None:
        """Change this host's own state (fields of HostState) and let the others know, in the background."""
        if not self.several:
            return
        with self._lock:
            before, self._own = self._own, replace(self._own, **changes)
            if self._own.state == "succeeded" and before.state != "succeeded":
                self._succeeded = self._clock()
            # What was found was looked for by another state.
            self._decision = None
            self._tell_due = -math.inf
            self._stir()

    def begin(self, attempt: int) -> None:
        """An attempt runs; hosts that are held together follow the others from now on."""
        if self.all:
            with self._lock:
                self._begun = True
            self.tell(state="running", attempt=attempt, exit_code=None, failed=0.0, first=False)

    def hold(self, on: bool = True) -> None:
        """Say whether this host is held."""
        if self.several:
            with self._lock:
                self._begun = self._begun or self.all
                self._holding = on
                self._stir()

    def start_over(self) -> None:
        """The start of the supervisor is over: from now on others can be asked, or never."""
        with self._lock:
            self._started = True
            self._lock.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until what was told is told, at most so long."""
        with self._lock:
            if self._thread is not None:
                self._lock.wait_for(lambda: self._told == self._own, seconds)

    def let_others_follow(self) -> None:
        """Stay until no other host waits any more, for FOLLOW_SECONDS at most, or longer where that cannot be known."""
        if not self.all:
            return
        began = self.linger()
        with self._lock:
            while not self.all_have_followed(began) and not self._context.ending.is_set():
                self._lock.wait(0.5)
            self._lingering = False

    def linger(self) -> float:
        """Begin to ask whether others still wait; returns when that is, by the clock."""
        with self._lock:
            self._followers = _Asked()
            self._lingering = True
            self._stir()
        return self._clock()

    def all_have_followed(self, began: float) -> bool:
        """Whether this host need not stay any longer for the others to learn what it has told.

        Args:
            began: what `linger` returned.
        """
        with self._lock:
            asked = self._followers
            now = self._clock()
            slow = self._throttled >= began - FOLLOW_LONGEST or self._told != self._own
            return (
                self._blind >= BLIND_LIMIT
                or (asked.answer is not None and not asked.found)
                or now - began >= (FOLLOW_LONGEST if slow else FOLLOW_SECONDS)
            )

    # ---------------------------------------------------------------------------- what the others say

    def somebody_connected(self) -> bool:
        """Whether a person is logged in to another host, by the last answer."""
        with self._lock:
            return self._blind < BLIND_LIMIT and self._presence.found

    def nobody_connected(self, seconds: float) -> bool:
        """Whether nobody is logged in to another host, by an answer that is not older than `seconds`.

        False where that is not known yet: it is asked soon.
        """
        if not self.several:
            return True
        with self._lock:
            asked = self._presence
            if self._blind >= BLIND_LIMIT or not self._started:
                return True
            now = self._clock()
            if asked.answer is not None and asked.asked >= now - seconds:
                return not asked.found
            if not asked.demanded and not asked.failures:
                # The others' holds may well end in the same moment.
                spread = len(self._context.job.hosts) / BURST_PER_SECOND
                asked.demanded = True
                asked.due = min(asked.due, max(asked.asked + spread, now + random.uniform(0.0, spread)))  # noqa: S311
                self._stir()
            return False

    def others_go_on(self) -> bool:
        """Whether another host runs, is held or has yet to follow into our attempt; True until that is known."""
        with self._lock:
            if self._blind >= BLIND_LIMIT:
                return False
            return self._progress.asked < self._succeeded or self._progress.found

    @property
    def others(self) -> Mapping[str, HostState]:
        """What is known of the others by now, by host; it is asked for anew, for the next time."""
        self._list(0.0)
        with self._lock:
            return dict(self._others or {})

    def held(self) -> list[str]:
        """The other hosts that are known to be held, sorted; empty for a job with many hosts."""
        if len(self._context.job.hosts) <= LIST_FEW:
            self._list(0.0)
        with self._lock:
            if self._clock() - self._listed > LIST_OLD:
                return []
            return sorted(host for host, other in (self._others or {}).items() if other.state == "held")

    def report(self, *, failing: bool = False) -> dict[str, Any]:
        """Sections of the report: hosts that have told something, and which failed first by its own clock.

        Args:
            failing: whether this host has failed just now, as all others may have.
        """
        if not self.several or (failing and len(self._context.job.hosts) > LIST_MANY):
            return {}
        self._list(REPORT_LIMIT, fresh=True)
        with self._lock:
            known = {self._own.host: self._own, **(self._others or {})}
        failed = [state for state in known.values() if state.failed]
        first = min(failed, key=lambda state: state.failed, default=None)
        if len(self._context.job.hosts) > LIST_MANY and not self._is_sure(first, failed):
            first = None
        return {
            "hosts": [asdict(known[host]) for host in sorted(known)],
            "first_failed": None if first is None else first.host,
        }

    @staticmethod
    def _is_sure(first: HostState | None, failed: list[HostState]) -> bool:
        """Whether it failed first, where not all hosts are known: those that may have been first are listed first."""
        return first is not None and first.first and sum(each.first for each in failed) < CLAIMS_MOST

    # ---------------------------------------------------------------------------- what is due

    def turn(self) -> float:
        """Tell and ask what is due.

        Returns:
            When there is more to do, by the clock; inf for not before something changes.
        """
        with self._lock:
            self._stirred = False
            self._want()
        self._tell()
        for asked, seconds, question in (
            (self._course, self._every(CALLS_PER_SECOND, LOOK_LONGEST), self._ask_course),
            (self._presence, self._every(CALLS_PER_SECOND / 2), self._ask_presence),
            (self._progress, self._every(CALLS_PER_SECOND * 2), self._ask_progress),
            (self._followers, self._every(BURST_PER_SECOND, shortest=2.0), self._ask_followers),
        ):
            if asked.wanted and self._clock() >= asked.due:
                self._renew(asked, seconds, question)
        with self._lock:
            questions = (self._course, self._presence, self._progress, self._followers)
            times = [asked.due for asked in questions if asked.wanted]
            if self._told != self._own:
                times.append(self._tell_due)
            return -math.inf if self._stirred else min(times, default=math.inf)

    def _want(self) -> None:
        """Which questions are asked in this state."""
        state = self._own.state
        wanted = {
            self._course: self._begun and self.all and state != "released",
            self._presence: self._holding and state != "released",
            self._progress: self._holding and state == "succeeded",
            self._followers: self._lingering,
        }
        now = self._clock()
        for asked, on in wanted.items():
            if on and not asked.wanted:
                # Hosts that come to ask in the same moment go on asking at different ones.
                spread = len(self._context.job.hosts) / BURST_PER_SECOND
                asked.due = now + random.uniform(0.0, min(spread, LOOK_LONGEST))  # noqa: S311 - no secret
                asked.answer, asked.asked, asked.failures, asked.demanded = None, -math.inf, 0, False
            asked.wanted = on

    def _every(
        self, calls_per_second: float, longest: float = math.inf, *, shortest: float = LOOK_SECONDS
    ) -> float:
        """Seconds between two times that a question is asked."""
        seconds = min(shortest, max(1.0, self._context.settings.hold_seconds / 5))
        return min(longest, max(seconds, len(self._context.job.hosts) / calls_per_second))

    def _tell(self) -> None:
        with self._lock:
            own = self._own
            if own == self._told or self._clock() < self._tell_due:
                return
            claim = own.failed > 0.0 and self._claimed != own.attempt
        if claim:
            answer = self._ask(HostQuestion(first=own.attempt))
            with self._lock:
                self._claimed = own.attempt
                first = answer is None or answer.host is None
                self._own = own = replace(self._own, first=first and self._own.failed > 0.0)
        told = self._plugins.tell_hosts(self._context, own)
        with self._lock:
            if told:
                self._told, self._tell_failures = own, 0
            else:
                self._tell_failures += 1
                longest = TELL_LONGEST
                if not (own.decision or own.connected):
                    longest = max(longest, len(self._context.job.hosts) / CALLS_PER_SECOND * 2)
                pause = min(longest, 2.0 ** min(self._tell_failures, 10))
                self._tell_due = self._clock() + random.uniform(0.0, pause)  # noqa: S311 - no secret
            self._lock.notify_all()

    def _renew(self, asked: _Asked, seconds: float, question: Callable[[], HostAnswer | None]) -> None:
        began = self._clock()
        pause = max(1.0, len(self._context.job.hosts) / BURST_PER_SECOND)
        answer = question()
        with self._lock:
            asked.demanded = False
            if answer is None:
                asked.due = began + (BLIND_SECONDS if self._blind >= BLIND_LIMIT else 2.0 * pause)
            elif answer.known:
                asked.answer, asked.asked, asked.failures = answer, began, 0
                asked.due = began + seconds * random.uniform(0.8, 1.0)  # noqa: S311 - no secret
            else:
                # Hosts that were throttled together do not come back together.
                pause *= 2.0 ** min(asked.failures, BACK_OFF)
                asked.failures += 1
                asked.due = began + pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            self._lock.notify_all()
        if asked is self._course and answer is not None and answer.known:
            with self._lock:
                self._decision = answer.host
            if answer.host is not None:
                self._on_change()

    def _ask_course(self) -> HostAnswer | None:
        with self._lock:
            own = self._own
        courses = [str(attempt) for attempt in range(own.attempt + 1, own.attempt + 1 + AHEAD)]
        if own.state in ("held", "succeeded"):
            courses += ["released"] if own.connected else ["released", "expired"]
        return self._ask(HostQuestion(courses=tuple(courses), decides=True))

    def _ask_presence(self) -> HostAnswer | None:
        return self._ask(HostQuestion(phases=("occupied",)))

    def _ask_progress(self) -> HostAnswer | None:
        answer = self._ask(HostQuestion(phases=GOES_ON))
        with self._lock:
            attempt = self._own.attempt
            recent = self._clock() < self._succeeded + FOLLOW_SECONDS
        if answer is None or not answer.known or answer.host is not None:
            return answer
        # One that was retried after this host last asked, and has succeeded since, no longer runs.
        decided = self._ask_course()
        if decided is None or not decided.known or decided.host is not None:
            with self._lock:
                self._course.due = -math.inf
            return decided
        if attempt == 1 or not recent:
            return decided
        # What it succeeded with is an attempt that a retry has made void. It may be unable to learn of it.
        void = tuple(str(each) for each in range(max(1, attempt - AHEAD), attempt))
        return self._ask(HostQuestion(phases=("succeeded",), courses=void))

    def _ask_followers(self) -> HostAnswer | None:
        with self._lock:
            expired = self._own.decision == "expire"
        # A deadline is not followed where somebody is connected.
        return self._ask(HostQuestion(phases=WAITS[1:] if expired else WAITS))

    def _ask(self, question: HostQuestion) -> HostAnswer | None:
        answer = self._plugins.ask_hosts(self._context, question)
        if answer is None:
            others = self._plugins.other_hosts(self._context)
            if others is not None:
                answer = HostAnswer(next((each for each in others.values() if question.fits(each)), None))
        with self._lock:
            self._blind = self._blind + 1 if answer is None else 0
            if answer is not None and not answer.known:
                self._throttled = self._clock()
            if self._blind == BLIND_LIMIT:
                _log.warning("the other hosts of this job cannot be asked")
            self._lock.notify_all()
        return answer

    # ---------------------------------------------------------------------------- threads

    def _stir(self) -> None:
        """There may be something due; with the lock."""
        self._stirred = True
        self._lock.notify_all()
        if self._thread is None and self._threaded:
            self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._started)
        while True:
            try:
                due = self.turn()
            except Exception:  # noqa: BLE001 - what is due later is not lost with it
                _log.exception("the other hosts")
                due = self._clock() + BLIND_SECONDS
            with self._lock:
                left = due - self._clock()
                self._lock.wait_for(lambda: self._stirred, None if left == math.inf else max(0.0, left))

    def _list(self, seconds: float, *, fresh: bool = False) -> None:
        """Have the others listed in a thread, if there is no new list yet, and wait for it at most so long.

        Args:
            seconds: how long.
            fresh: whether it has to be asked for now.
        """
        deadline = self._clock() + seconds
        with self._lock:
            under_way = self._lister
        if fresh and under_way is not None:
            under_way.join(seconds)  # what it says may be older
        with self._lock:
            age = self._clock() - self._listed
            if not self.several or not self._started or age < (0.0 if fresh else self._every(math.inf)):
                return
            if self._lister is None:
                self._lister = threading.Thread(target=self._look, name="list", daemon=True)
                self._lister.start()
            lister = self._lister
        lister.join(max(0.0, deadline - self._clock()))

    def _look(self) -> None:
        others = self._plugins.other_hosts(self._context)
        with self._lock:
            if others is not None:
                self._others = others
            # Where it cannot be told, not at every look at the status either.
            self._listed = self._clock() + (BLIND_SECONDS if others is None else 0.0)
            self._lister = None
