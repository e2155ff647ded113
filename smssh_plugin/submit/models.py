"""Models, and the transform steps that use them: which models are changed, and by which way the files get in.

A transform job has no channel and names no entry point: what it needs comes with its model. A model may be for
production too, so it is changed only where a person named it, where endpoints are asked for, or where a transform step
that can have SSH uses it; and by ways that are proven, unless a person named one of the two.

Two things that are compiled one after the other depend on each other here: the step that makes a model on the requests
of the transform steps, and these on the model's. So each keeps what it found of the other, and `stale` answers whether
that has changed by the time the last of them was compiled.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple

from ..errors import SmsshError
from . import repack, repack_step
from .inject import ADDED, BAKED, REPACKED, SOURCES, Attachment, first_pass, inject, refused
from .request.add_ssh import name_of
from .request.limits import refuse
from .request.values import at
from .warnings import say, unproven_way, unseen

if TYPE_CHECKING:
    from .options import SSHOptions
    from .sessions import SessionOf

__all__ = ["ModelAttachment", "TransformAttachment", "Verdict", "way_into"]

Request = Mapping[str, Any]


class Verdict(NamedTuple):
    """Whether a model gets SSH.

    Attributes:
        way: the way by which; None where it does not.
        problem: why it does not; None where nobody wants it to.
    """

    way: str | None = None
    problem: SmsshError | None = None

    @property
    def about_files(self) -> bool:
        """Whether nothing but files stands in the way, which an image that has smssh-plugin needs not."""
        return self.problem is None or self.problem.reference in _ABOUT_FILES

    @property
    def key(self) -> tuple[str | None, str | None]:
        """What two of them are compared by."""
        return self.way, None if self.problem is None else self.problem.message


@dataclass(eq=False)
class ModelAttachment(Attachment):
    """The step that makes a model.

    Attributes:
        chosen: whether it was chosen itself, and not only comes along with a transform step.
        peek: answers its request without compiling the step; None where that is not possible.
        users: the transform steps that use it.
        addable: whether a step can be added before it.
        settled: whether its request has been sent, so that nothing that comes later changes it.
        repacked_by_us: whether the request that was made last needs a step of ours that repacks the artefact.
        verdict: what was found when its request was made last.
        decided_by: what that depended on: `needed` and `unproven`.
    """

    chosen: bool = False
    peek: Callable[[], Request | None] = lambda: None
    users: list[TransformAttachment] = field(default_factory=list)
    addable: bool = False
    settled: bool = False
    repacked_by_us: bool = False
    verdict: Verdict | None = None
    decided_by: set[tuple[bool, bool]] = field(default_factory=set)

    @property
    def needed_itself(self) -> bool:
        """Whether it has to have SSH whatever uses it."""
        return self.named or (self.chosen and self.options.endpoints)

    @property
    def needed(self) -> bool:
        """Whether it has to have SSH."""
        return self.needed_itself or any(user.fit for user in self.users)

    @property
    def unproven(self) -> bool:
        """Whether a way may be used that is not proven for transform jobs."""
        asked = any(user.fit and user.named for user in self.users)
        return asked or self.named or (self.needed and self.options.endpoints)

    @property
    def strict(self) -> bool:
        """Whether it is an error that it can't have SSH."""
        return self.alone or any(user.fit and user.alone for user in self.users)

    def judge(self, request: Request, session_of: SessionOf) -> Verdict:
        """Whether it gets SSH, by its request."""
        self.decided_by.add((self.needed, self.unproven))
        if not self.options.active or not self.needed:
            return Verdict()
        try:
            self.way = way_into(
                self.name, request, self.options, unproven=self.unproven, addable=self.addable
            )
        except SmsshError as error:
            return Verdict(problem=error)
        changed = first_pass(self, request, session_of)
        return Verdict(problem=changed) if isinstance(changed, SmsshError) else Verdict(self.way)

    def foresee(self, session_of: SessionOf) -> Verdict:
        """The same, before the step was compiled; where nothing is known yet, it is taken for granted."""
        if not self.settled:
            request = self.peek()
            if request is not None or not self.options.active:
                return self.judge(request or {}, session_of)
        return Verdict(SOURCES) if self.verdict is None else self.verdict

    def add_ssh(self, request: Request, session_of: SessionOf) -> Request:
        """The request, changed where the model is to have SSH."""
        verdict = self.verdict = self.judge(request, session_of)
        self.repacked_by_us = False
        if verdict.problem is not None:
            # Else the transform steps that would have used it say so.
            if self.strict or self.needed_itself:
                refused(verdict.problem, self, request, alone=self.strict)
            return request
        if verdict.way is None:
            return request
        if verdict.way == SOURCES and not self.options.endpoints and not any(user.fit for user in self.users):
            say(self.subject(request), [unproven_way()])
        changed = inject(self, request, session_of)
        self.repacked_by_us = verdict.way == ADDED and changed is not request
        return changed

    @property
    def stale(self) -> bool:
        """Whether it was decided by what is no longer so."""
        return self.decided_by - {(self.needed, self.unproven)} != set()


@dataclass(eq=False)
class TransformAttachment(Attachment):
    """A transform step.

    Attributes:
        model: the step that makes its model; None where that is made elsewhere.
        possible: whether its own request can have SSH, and has not yet, as far as is known.
        model_verdict: what was found of its model when its own request was made last.
    """

    model: ModelAttachment | None = None
    possible: bool = True
    model_verdict: Verdict | None = None

    def __post_init__(self) -> None:
        if self.model is not None:
            self.model.users.append(self)

    @property
    def fit(self) -> bool:
        """Whether it gets SSH if its model does."""
        return self.possible and self.options.active

    @property
    def model_options(self) -> SSHOptions | None:
        """What was asked for its model; None where that is not known, or SSH is off there."""
        return self.model.options if self.model is not None and self.model.options.active else None

    def look(self, request: Request, session_of: SessionOf) -> SmsshError | None:
        """Find out whether its own request can have SSH; answers why not."""
        changed = first_pass(self, request, session_of)
        self.possible = changed is not request and not isinstance(changed, SmsshError)
        return changed if isinstance(changed, SmsshError) else None

    def add_ssh(self, request: Request, session_of: SessionOf) -> Request:
        """The request, changed where it and its model can have SSH."""
        self.model_verdict = None
        if not self.options.active:
            return request
        where, attachment = self.subject(request), self
        error = self.look(request, session_of)
        if error is not None:
            refused(error, self, request, alone=self.alone)
        if not self.possible:  # or it has SSH already
            return request
        if self.model is None:
            say(where, unseen(self.options))
            return inject(attachment, request, session_of)
        verdict = self.model_verdict = self.model.foresee(session_of)
        if verdict.way is None and verdict.about_files and self.options.baked:
            # The image has all that is needed except for the role, which no transform request has.
            own = self.options.role
            role = at(self.model.peek(), "ExecutionRoleArn") if own is None else own
            attachment = copy.copy(self)
            attachment.options = self.options.merged({"role": role})
            say(where, unseen(attachment.options))
        elif verdict.way is None:
            alone = self.alone and verdict.problem is not None
            refused(self.problem(verdict), self, request, alone=alone)
            return request
        elif verdict.way == SOURCES:
            say(where, [unproven_way()])
        return inject(attachment, request, session_of)

    def problem(self, verdict: Verdict) -> SmsshError:
        """Why it goes without SSH where its model does."""
        assert self.model is not None
        where = name_of("transform", self.name)
        if verdict.problem is None:
            return refuse(
                where,
                "its model, which would bring our files, is made without SSH",
                "name models as well (enable(session, steps=('*', 'model'))), or use an image that has smssh-plugin "
                "(launcher='baked')"
                if self.model.settled
                else f"turn SSH on for {name_of('model', self.model.name)}, too, or use an image that has smssh-plugin "
                "(SSHOptions(launcher='baked'))",
                "model-without-ssh",
            )
        reason = verdict.problem.message.replace(f"{name_of('model', self.model.name)}: ", "", 1)
        return SmsshError(
            f"{where}: its model can't have SSH: {reason}",
            hint=verdict.problem.hint,
            reference=verdict.problem.reference,
            status=verdict.problem.status,
        )

    def stale(self, session_of: SessionOf) -> bool:
        """Whether its model has changed since."""
        if self.model_verdict is None or self.model is None:
            return False
        return self.model_verdict.key != self.model.foresee(session_of).key


_ABOUT_FILES = ("model-package", "name-taken", "not-repacked", "source-not-local", "unproven-way")
_REPACKED_BY_US = ("not-repacked", "source-not-local")
"""Why the SDK's repacking can't bring the bundle, where a step of our own can."""


def way_into(
    name: str | None, request: Request, options: SSHOptions, *, unproven: bool, addable: bool = False
) -> str:
    """The way by which a model brings our files: the image, an artefact that is repacked, an additional data source.

    Args:
        name: the name of the step, if there is one.
        request: the model's request.
        options: what was asked for.
        unproven: whether a way may be used that is not proven for transform jobs.
        addable: whether a step that repacks it can be added.

    Raises:
        SmsshError: no way is possible.
    """
    where = name_of("model", name)
    if options.baked:
        return BAKED
    if options.repack is not False:
        problem = repack.problem(where, request)
        if problem is None:
            return REPACKED
        if options.repack:
            if addable and problem.reference in _REPACKED_BY_US:
                problem = repack_step.problem(where, request)
            if problem is None:
                return ADDED
            raise problem
    if unproven:
        return SOURCES
    raise refuse(
        where,
        "nothing puts files into its artefact, and AWS does not document AdditionalModelDataSources for batch "
        "transform",
        "let a job repack it first (SSHOptions(repack=True); it takes some minutes), name the transform step, to try "
        "these all the same (steps=...), or use an image that has smssh-plugin (SSHOptions(launcher='baked'))",
        "unproven-way",
    )
