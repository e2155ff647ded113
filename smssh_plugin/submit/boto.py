"""`enable`: SSH for whatever a boto3 session or client of SageMaker creates.

For `ModelTrainer.train()`, `Estimator.fit()`, `Processor.run()` and plain boto3, outside pipelines; and for pipelines
whose definition is made elsewhere: CreatePipeline and UpdatePipeline are changed step by step.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import weakref
from dataclasses import replace
from typing import Any, Callable, Iterable, Iterator, Mapping

from ..errors import ExitStatus, SmsshError
from . import local_mode, switch
from .account import account_of
from .bundle.bucket import Bucket
from .bundle.renew import bundles_of, definition_of, keep
from .bundle.store import destination, split
from .inject import Attachment
from .models import ModelAttachment, TransformAttachment
from .options import SSHOptions
from .pipelines import inject_definition
from .request.limits import check_definition
from .request.values import is_text
from .selection import EVERYTHING, Choice, Selection
from .sessions import SdkSession, SessionOf, boto_session_of
from .warnings import RequestWarning, gathered, say

__all__ = ["enable"]

SERVICE = "sagemaker"
OPERATIONS: Mapping[str, str] = {
    "CreateTrainingJob": "training",
    "CreateProcessingJob": "processing",
    "CreateTransformJob": "transform",
    "CreateModel": "model",
    "CreateHyperParameterTuningJob": "tuning",
}
PIPELINES = ("CreatePipeline", "UpdatePipeline")
START = "StartPipelineExecution"

Store = Callable[[Any], Any]
"""Answers the session that stores the bundles of a client's calls."""


def enable(
    target: Any = None,
    options: SSHOptions | None = None,
    *,
    boto_session: Any = None,
    steps: str | Iterable[str] | None = None,
    **changes: Any,
) -> Any:
    """Let the jobs that a boto3 session or client creates from now on be entered over SSH.

    ```python
    enable(boto3_session)  # every SageMaker client that it makes from now on
    enable(client)  # one client of SageMaker
    enable(sagemaker_session)  # a session of the SageMaker SDK, v2 or v3
    enable()  # all of that in this process, and only if SMSSH_ENABLE=1 is in its environment
    ```

    A script that calls `enable()` before it makes sessions sends the same requests as without it, until somebody runs
    it with `SMSSH_ENABLE=1`. A request that cannot have SSH is sent unchanged, with a warning; a session of the SDK's
    local mode is left alone, with a warning. A second call replaces the options of the first; without a target, for the
    sessions that are made from then on.

    Args:
        target: one of the sessions or clients above; None for this process.
        options: what is asked for; see `SSHOptions`.
        boto_session: the boto3 session that stores the bundle; by default the target where it has the region and the
            credentials of the client that makes the call, else a session with these.
        steps: which steps of pipelines are meant, whose definition is given to CreatePipeline or UpdatePipeline: names,
            patterns or kinds, as for `with_ssh`; all, if it is left out. A CreateModel is left alone, and with it the
            transform jobs that use the model, unless its name or kind is among them (`("*", "model")`), or with
            `endpoints`: the model may be for production.
        changes: single options, which go before `options`.

    Returns:
        The target.

    Raises:
        SmsshError: the target is nothing of these, or an option is wrong.
    """
    asked = (options if options is not None else SSHOptions()).merged(changes)
    if switch.is_variable(asked.enabled):
        raise SmsshError(
            "enable: enabled is a pipeline parameter, which means nothing to a request outside of a pipeline",
            hint="give True, False or the name of an environment variable; or decorate the pipeline: "
            "with_ssh(pipeline, enabled=parameter)",
            reference="bad-option",
            status=ExitStatus.USAGE,
        )
    selection = EVERYTHING if steps is None else Selection(steps)
    if target is None:
        in_process = asked if asked.enabled is not None else asked.merged({"enabled": switch.ENABLE})
        _enable_process(Choice(in_process, selection), boto_session)
        return None
    if local_mode.is_local(target):
        if asked.active:
            local_mode.warn("enable")
        return target
    for place, store in _places_of(target, boto_session):
        _register(place, Choice(asked, selection), store)
    return target


# -------------------------------------------------------------------------------- what is enabled


def _places_of(target: Any, boto_session: Any) -> Iterator[tuple[Any, Store]]:
    """The clients and makers of clients behind a target, each with what stores the bundles of its calls.

    Raises:
        SmsshError: nothing in it makes clients.
    """
    named: Store | None = None if boto_session is None else lambda _: boto_session
    own = getattr(target, "boto_session", None)
    if own is not None:  # a session of the SDK, whose client was made with it
        client = getattr(target, "sagemaker_client", None)
        for place, _ in _places_of(own, boto_session):
            yield place, named or (lambda made: _session_for(made, target))
        if client is not None:
            for place, _ in _places_of(client, boto_session):
                # Whatever its credentials: the SDK itself stores with those of its boto3 session.
                yield place, named or (lambda made: _session_for(made, target, anybody=True))
    elif _is_client(target):
        region = target.meta.region_name
        yield target, named or (lambda made: _session_for(made, _default_session(region)))
    elif _is_boto_session(target):
        for place in (target.events, *_clients_of_sdk(target)):
            yield place, named or (lambda made: _session_for(made, target))
    else:
        raise SmsshError(
            f"enable takes a boto3 session, a SageMaker client or a session of the SageMaker SDK, not {_named(target)}",
            hint="use with_ssh for steps and pipelines",
            reference="not-a-client",
            status=ExitStatus.USAGE,
        )


def _is_client(target: Any) -> bool:
    model = getattr(getattr(target, "meta", None), "service_model", None)
    return model is not None and model.service_name == SERVICE


def _is_boto_session(target: Any) -> bool:
    events = getattr(target, "events", None)
    return callable(getattr(events, "register", None)) and callable(getattr(target, "client", None))


def _named(target: Any) -> str:
    model = getattr(getattr(target, "meta", None), "service_model", None)
    return f"a client of {model.service_name}" if model is not None else f"a {type(target).__qualname__}"


def _clients_of_sdk(boto_session: Any) -> Iterator[Any]:
    """The clients that SDK v3 keeps and goes on using: one a process up to 3.2x, then one a boto3 session."""
    module = sys.modules.get("sagemaker.core.utils.utils")
    cached: Any = getattr(getattr(module, "SageMakerClient", None), "_instances", None)
    for entry in list(cached.values()) if isinstance(cached, dict) else ():
        shared = not isinstance(entry, dict)
        for holder in [entry] if shared else list(entry.values()):
            client = getattr(holder, "sagemaker_client", None)
            if _is_client(client) and (shared or getattr(holder, "session", None) is boto_session):
                yield client


def _enable_process(choice: Choice, boto_session: Any) -> None:
    """Every session of this process: those to come, and boto3's default one, if there is one already."""
    import boto3
    import botocore

    global _initializer  # noqa: PLW0603 - botocore's list of them is one a process, too

    def initialize(botocore_session: Any) -> None:
        _register(
            botocore_session,
            choice,
            lambda client: boto_session or _session_for(client, _like(botocore_session)),
        )

    if _initializer is not None:
        botocore.unregister_initializer(_initializer)
    botocore.register_initializer(initialize)
    _initializer = initialize
    default = boto3.DEFAULT_SESSION
    for place, store in () if default is None else _places_of(default, boto_session):
        _register(place, choice, store)


_initializer: Callable[[Any], None] | None = None


def _default_session(region: str | None) -> Any:
    import boto3

    return boto3.Session(region_name=region)


def _like(botocore_session: Any) -> Any:
    """A boto3 session with the credentials, profile and region of a botocore session."""
    import boto3

    return boto3.Session(
        region_name=botocore_session.get_config_variable("region"),
        profile_name=botocore_session.get_config_variable("profile"),
        **_keys(botocore_session.get_credentials()),
    )


def _session_for(client: Any, usual: Any, *, anybody: bool = False) -> Any:
    """The session that stores what the jobs of a client read: in its region, and with its credentials.

    Args:
        client: the client of SageMaker.
        usual: a session of boto3 or the SDK, which is taken where it has both; it may know another place than the
            region's default bucket.
        anybody: whether the usual session will do with other credentials, too.
    """
    import boto3

    own = boto_session_of(usual)
    region, keys, others = client.meta.region_name, _keys_of_client(client), _keys(own.get_credentials())
    if own.region_name == region and (anybody or keys in ({}, others)):
        return usual
    named = own.profile_name in own.available_profiles  # "default" may stand for none
    return boto3.Session(
        region_name=region,
        profile_name=own.profile_name if named else None,
        **(others if anybody or not keys else keys),
    )


def _keys_of_client(client: Any) -> dict[str, Any]:
    """The credentials that a client signs with; none for one that does not sign."""
    # botocore has no public way to them, and what is private may go.
    return _keys(getattr(getattr(client, "_request_signer", None), "_credentials", None))


def _keys(credentials: Any) -> dict[str, Any]:
    """Credentials of botocore's, as a boto3 session takes them."""
    if credentials is None:
        return {}
    frozen = credentials.get_frozen_credentials()
    return {
        "aws_access_key_id": frozen.access_key,
        "aws_secret_access_key": frozen.secret_key,
        "aws_session_token": frozen.token,
    }


def _register(place: Any, choice: Choice, store: Store) -> None:
    """Register for the calls of a client, or of all clients to come, in place of what was registered before.

    Args:
        place: a client; or what makes clients: the event system of a boto3 session, or a botocore session.
        choice: what is asked for.
        store: answers the session that stores the bundle.
    """
    if _is_client(place):
        _register_client(place, choice, store)
        return
    event, name = f"creating-client-class.{SERVICE}", "smssh-client"
    place.unregister(event, unique_id=name)
    place.register(event, functools.partial(_on_class, choice, store), unique_id=name)


def _on_class(choice: Choice, store: Store, base_classes: list[Any], **_: Any) -> None:
    """Let a client register itself when it is made: the events of its calls do not say whose they are."""

    class Enabled:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _register_client(self, choice, store)

    base_classes.insert(0, Enabled)


def _register_client(client: Any, choice: Choice, store: Store) -> None:
    """Register for all calls of a client that are changed."""
    # The client has the handlers: with a reference back it would only go when garbage is collected.
    session_of = functools.partial(store, weakref.proxy(client))
    region = client.meta.region_name
    handlers: dict[str, Callable[..., None]] = {
        operation: functools.partial(_on_job, kind, region, choice, session_of)
        for operation, kind in OPERATIONS.items()
    }
    handlers.update(dict.fromkeys(PIPELINES, functools.partial(_on_pipeline, choice, session_of)))
    handlers[START] = functools.partial(_on_start, choice, session_of, weakref.ref(client))
    for operation, handler in handlers.items():
        event, name = f"provide-client-params.{SERVICE}.{operation}", f"smssh-{operation}"
        client.meta.events.unregister(event, unique_id=name)
        client.meta.events.register(event, handler, unique_id=name)


# -------------------------------------------------------------------------------- what is changed


def _on_job(kind: str, region: str, choice: Choice, session_of: SessionOf, params: Any, **_: Any) -> None:
    """Change the parameters of a call in place: the dict is botocore's own, and other handlers may follow."""
    request = dict(params)
    changed = _attachment(kind, region, request, choice).add_ssh(request, session_of)
    if changed is not request:
        params.clear()
        params.update(changed)


def _attachment(kind: str, region: str, request: Mapping[str, Any], choice: Choice) -> Attachment:
    """What is asked for the call; a model is remembered for the transform jobs that use it."""
    options, name = choice.options, request.get("ModelName")
    known = (region, name) if is_text(name) else None  # what is not text, botocore refuses
    if kind == "model":
        named = known is not None and choice.selection.names(kind, [known[1]])
        made = ModelAttachment(kind, None, options, named=named, chosen=True, peek=lambda: request)
        if known is not None:
            _models.pop(known, None)
        if known is not None and options.active:
            _models[known] = made
        return made
    if kind == "transform":
        model = None if known is None else _models.get(known)
        if model is not None:
            model = replace(model, users=[], settled=True)
        return TransformAttachment(kind, None, options, model=model)
    return Attachment(kind, None, options)


_models: dict[tuple[str, str], ModelAttachment] = {}
"""The models that were made in this process while SSH was on, by region and name."""


def _on_pipeline(choice: Choice, session_of: SessionOf, params: Any, **_: Any) -> None:
    """The same for the definition of a pipeline, wherever it is."""
    options = choice.options
    if not options.active:
        return
    session_of = functools.lru_cache(maxsize=None)(session_of)  # one for all its steps
    pipeline = str(params.get("PipelineName"))
    location = params.get("PipelineDefinitionS3Location")
    text = params.get("PipelineDefinition")
    if text is None and location is not None:
        text = _read(pipeline, location, options, session_of)
    with gathered(pipeline):
        changed = None if text is None else _changed(text, choice, session_of)
    if changed is None:
        return
    if location is None:
        check_definition(pipeline, text, changed)
        params["PipelineDefinition"] = changed
    else:
        params["PipelineDefinitionS3Location"] = _store(changed, options, session_of())


def _on_start(
    choice: Choice,
    session_of: SessionOf,
    client_of: Callable[[], Any],
    params: Any,
    **_: Any,
) -> None:
    """See that the bundles are there which a pipeline uses that is started; whatever is wrong, it is started."""
    options, client, pipeline = choice.options, client_of(), params.get("PipelineName")
    if not options.active or client is None or not is_text(pipeline):
        return
    try:
        addresses = bundles_of(definition_of(client, pipeline))
        session = session_of() if addresses else None
        for address in addresses:
            bucket = _bucket(split(address)[0], options, session)
            keep(pipeline, address, bucket.client, bucket.owner, options.s3_encryption or "")
    except SmsshError as error:
        # A person who may start a pipeline need not be allowed to read it.
        say(
            f"pipeline {pipeline!r}",
            [RequestWarning(f"its bundles were not looked at: {error.message}", "", each=False)],
        )


def _changed(text: str, choice: Choice, session_of: SessionOf) -> str | None:
    """The definition with SSH in it; None where nothing is changed, or the service is to judge it."""
    try:
        definition = json.loads(text)
    except ValueError:
        return None
    if not isinstance(definition, dict):
        return None
    changed = inject_definition(definition, choice.options, choice.selection, session_of)
    return None if changed is definition else json.dumps(changed)


def _read(
    pipeline: str, location: Mapping[str, Any], options: SSHOptions, session_of: SessionOf
) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    version = {name: location[name] for name in ("VersionId",) if location.get(name)}
    try:
        bucket = _bucket(location["Bucket"], options, session_of())
        text: str = bucket.get(location["ObjectKey"], **version)["Body"].read().decode()
    except (BotoCoreError, ClientError, SmsshError, KeyError, UnicodeDecodeError) as error:
        say(
            f"no SSH for pipeline {pipeline!r}",
            [RequestWarning(f"its definition in S3 can't be read: {error}", closed=True)],
        )
        return None
    return text


def _store(text: str, options: SSHOptions, session: SdkSession) -> Mapping[str, str]:
    """Put a definition beside the bundles, under a name of its own: the one that was given is somebody else's."""
    from botocore.exceptions import BotoCoreError, ClientError

    place = destination(options, session)
    key = place.key(hashlib.sha256(text.encode()).hexdigest(), "pipeline.json")
    try:
        place.objects.put(key, text.encode())
    except (BotoCoreError, ClientError) as error:
        raise SmsshError(
            f"cannot write the pipeline's definition with SSH to s3://{place.bucket}/{key}: {error}",
            hint="allow s3:PutObject there, or name another place in SSHOptions(bundle_prefix='s3://bucket/prefix')",
            reference="definition-not-writable",
            status=ExitStatus.REFUSED,
        ) from None
    return {"Bucket": place.bucket, "ObjectKey": key}


def _bucket(name: str, options: SSHOptions, session: SdkSession) -> Bucket:
    """A bucket that a request names: one's own account's, or that of the account that the options name for it."""
    place = options.place
    named = options.bucket_owner if place is not None and split(place)[0] == name else ""
    return Bucket(_s3(session), name, named or account_of(session, name))


def _s3(session: SdkSession) -> Any:
    return boto_session_of(session).client("s3")
