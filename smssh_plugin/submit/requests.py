"""What SSH adds to a request. Pure functions over plain dicts in which any leaf may be a pipeline variable.

Pipeline variables of the SageMaker SDKs raise on str(), len(), hash() and `in`, answer == with False and
bool() with True, and hold their whole step, so that copying one copies the pipeline. So here containers are
copied, leaves are passed on by reference, and nothing is done to a leaf before its type is known to be str or
bool. In a pipeline definition (JSON) a variable is a dict with one key: see `_is_map`.

What is added, by kind: the channel `smssh` with the bundle (training, processing, tuning, model), what starts
it (the entry point wrapped in `run.sh` where the request names one, else PYTHONPATH with the bundle's
`sitecustomize.py`), and the few variables that must be known before the bundle's `options.json` can be read.
A model gets the bundle but not the switch: transform jobs turn it on, endpoints made from the same model stay
as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from .limits import LIMITS, check_count, check_environment, refuse

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = ["CHANNEL", "FOLDERS", "KINDS", "Injection", "cautions", "transform_request"]

Request = Mapping[str, Any]

CHANNEL = "smssh"
FOLDERS = {
    "training": "/opt/ml/input/data/smssh",
    "tuning": "/opt/ml/input/data/smssh",
    "processing": "/opt/ml/processing/input/smssh",
    "model": "/opt/ml/additional-model-data-sources/smssh",
}
"""Where the bundle is in the container, by kind."""

KINDS = {
    "Training": "training",
    "Processing": "processing",
    "Transform": "transform",
    "Model": "model",
    "Tuning": "tuning",
}
"""The kind of request behind each type of pipeline step that can be entered."""

_VARIABLES = frozenset({"Std:Join", "Std:JsonGet"})
_REFERENCE = re.compile(r"[A-Za-z]+\.")
_BUNDLE_URI = re.compile(r"s3://.+/[0-9a-f]{64}/\Z")


@dataclass(frozen=True)
class Injection:
    """What is added to a request, decided beforehand.

    Attributes:
        bundle: the S3 prefix of the bundle, ending in its digest and a slash; not used by transform requests.
        step: the name of the pipeline step, if there is one.
        role: role for the activation (may be a pipeline variable); None takes the request's own.
        transport: `ssm`, `none` or `native`.
        environment: more variables of the job; values may be pipeline variables.
    """

    bundle: str
    step: str | None = None
    role: Any = None
    transport: str = "ssm"
    environment: Mapping[str, Any] = field(default_factory=dict)


def transform_request(kind: str, request: Request, injection: Injection) -> Request:
    """The request with SSH in it; the same object where it has that already.

    Args:
        kind: one of the values of `KINDS`.
        request: the request as boto3 takes it, or a step's arguments; it is not changed.
        injection: what to add.

    Returns:
        A new dict that shares all that is untouched with the old one.

    Raises:
        SmsshError: this request can't have SSH; says what stands in the way and what can be done.
    """
    where = _where(kind, injection.step)
    if injection.transport == "native" and kind != "training":
        raise refuse(
            where,
            f"the native transport is SageMaker's remote debugging, which no {LIMITS[kind].call} has",
            "use SSHOptions(transport='ssm')",
            "native-is-training-only",
        )
    return _TRANSFORMS[kind](request, injection, where)


def cautions(kind: str, request: Request, step: str | None) -> list[str]:
    """What can't be decided from the request, and may keep people out: one sentence each.

    Args:
        kind: one of the values of `KINDS`.
        request: the request, before or after `transform_request`.
        step: the name of the pipeline step, if there is one.
    """
    where = _where(kind, step)
    holders: dict[str, list[tuple[str, Any]]] = {
        "training": [("", request)],
        "model": [("", request)],
        "processing": [("NetworkConfig.", request.get("NetworkConfig"))],
        "tuning": [("TrainingJobDefinition.", request.get("TrainingJobDefinition"))],
    }
    several = request.get("TrainingJobDefinitions")
    if kind == "tuning" and _is_list(several):
        holders["tuning"] = [("TrainingJobDefinitions.", each) for each in several]
    found = []
    for prefix, holder in holders.get(kind, ()):
        value = holder.get("EnableNetworkIsolation") if _is_map(holder) else None
        if value is not None and value is not False and value is not True:
            found.append(
                f"{where}: {prefix}EnableNetworkIsolation is a pipeline variable; where it is true, the "
                "container can't be entered"
            )
    return found


def _where(kind: str, step: str | None) -> str:
    return f"step {step!r}" if step is not None else f"the {LIMITS[kind].call}"


# -------------------------------------------------------------------------------- the kinds


def _training(request: Request, injection: Injection, where: str) -> Request:
    if request.get("ServerlessJobConfig") is not None:
        raise refuse(where, "a serverless training job has no container to enter", None, "serverless")
    _refuse_isolation(request, where, "EnableNetworkIsolation")
    channels = _sequence(request.get("InputDataConfig"), where, "InputDataConfig")
    if _has_bundle(channels, "ChannelName", _channel_uri, where, "InputDataConfig"):
        return request
    algorithm = _algorithm(request, where)
    changed = dict(request)
    changed["InputDataConfig"] = _with_channel(channels, request, injection.bundle, where, "InputDataConfig")
    variables = _variables(injection, request.get("RoleArn"))
    entry_point = algorithm.get("ContainerEntrypoint")
    if _is_list(entry_point) and entry_point:
        changed["AlgorithmSpecification"] = {
            **algorithm,
            "ContainerEntrypoint": _wrapped(
                entry_point, "training", where, "AlgorithmSpecification.ContainerEntrypoint"
            ),
        }
        folder = None
    else:
        folder = FOLDERS["training"]
    changed["Environment"] = _environment(request.get("Environment"), variables, folder, "training", where)
    if injection.transport == "native":
        changed.setdefault("RemoteDebugConfig", {"EnableRemoteDebug": True})
    return changed


def _processing(request: Request, injection: Injection, where: str) -> Request:
    network = request.get("NetworkConfig")
    if _is_map(network):
        _refuse_isolation(network, where, "NetworkConfig.EnableNetworkIsolation")
    inputs = _sequence(request.get("ProcessingInputs"), where, "ProcessingInputs")
    if _has_bundle(inputs, "InputName", _input_uri, where, "ProcessingInputs"):
        return request
    specification = request.get("AppSpecification")
    if not _is_map(specification):
        raise _unreadable(where, "AppSpecification")
    check_count(where, "ProcessingInputs", len(inputs) + 1, 1, LIMITS["processing"].inputs, "inputs")
    changed = dict(request)
    changed["ProcessingInputs"] = [
        *inputs,
        {
            "InputName": CHANNEL,
            "S3Input": {
                "S3Uri": injection.bundle,
                "LocalPath": FOLDERS["processing"],
                "S3DataType": "S3Prefix",
                "S3InputMode": "File",
                "S3DataDistributionType": "FullyReplicated",
                "S3CompressionType": "None",
            },
        },
    ]
    entry_point = specification.get("ContainerEntrypoint")
    if _is_list(entry_point) and entry_point:
        changed["AppSpecification"] = {
            **specification,
            "ContainerEntrypoint": _wrapped(
                entry_point, "processing", where, "AppSpecification.ContainerEntrypoint"
            ),
        }
        folder = None
    else:
        folder = FOLDERS["processing"]
    variables = _variables(injection, request.get("RoleArn"))
    changed["Environment"] = _environment(request.get("Environment"), variables, folder, "processing", where)
    return changed


def _transform(request: Request, injection: Injection, where: str) -> Request:
    # The model brings the bundle and its own role; this turns it on for this job.
    variables = _variables(injection, None)
    environment = request.get("Environment")
    if _is_map(environment) and all(name in environment for name in variables):
        return request
    return {**request, "Environment": _environment(environment, variables, None, "transform", where)}


def _model(request: Request, injection: Injection, where: str) -> Request:
    _refuse_isolation(request, where, "EnableNetworkIsolation")
    containers = request.get("Containers")
    if _is_list(containers) and containers:
        if len(containers) > 1:
            raise refuse(
                where,
                f"the model has {len(containers)} containers, and SSH can enter models of one",
                "leave SSH off here (SSHOptions(enabled=False))",
                "several-containers",
            )
        container, field = containers[0], "Containers[0]"
    else:
        container, field = request.get("PrimaryContainer"), "PrimaryContainer"
    if not _is_map(container):
        raise _unreadable(where, field)
    if container.get("ModelPackageName") is not None:
        raise refuse(
            where,
            f"{field} comes from a model package, to which no files can be added",
            "make the model from its image and artefact instead",
            "model-package",
        )
    name = f"{field}.AdditionalModelDataSources"
    sources = _sequence(container.get("AdditionalModelDataSources"), where, name)
    if _has_bundle(sources, "ChannelName", _source_uri, where, name):
        return request
    check_count(where, name, len(sources) + 1, 1, LIMITS["model"].inputs, "data sources")
    variables = _variables(injection, request.get("ExecutionRoleArn"))
    del variables["SMSSH_ENABLE"]
    variables.pop("SMSSH_STEP", None)  # the name of the transform step is what counts
    changed = {
        **container,
        "AdditionalModelDataSources": [
            *sources,
            {
                "ChannelName": CHANNEL,
                # With S3Prefix the address must end in a slash (API reference, S3ModelDataSource).
                "S3DataSource": {
                    "S3Uri": injection.bundle,
                    "S3DataType": "S3Prefix",
                    "CompressionType": "None",
                },
            },
        ],
        "Environment": _environment(
            container.get("Environment"), variables, FOLDERS["model"], "model", where, f"{field}.Environment"
        ),
    }
    if field == "PrimaryContainer":
        return {**request, "PrimaryContainer": changed}
    return {**request, "Containers": [changed]}


def _tuning(request: Request, injection: Injection, where: str) -> Request:
    several = request.get("TrainingJobDefinitions")
    if _is_list(several) and several:
        field, definitions = "TrainingJobDefinitions", several
    else:
        field, definitions = "TrainingJobDefinition", [request.get("TrainingJobDefinition")]
    changed = [_tuning_definition(each, injection, where, field) for each in definitions]
    if all(new is old for new, old in zip(changed, definitions)):
        return request
    total = sum(len(each["Environment"]) for each in changed)
    before = sum(len(each.get("Environment") or ()) for each in definitions)
    check_count(where, f"{field}.Environment", total, total - before, LIMITS["tuning"].entries, "entries")
    return {**request, field: changed if definitions is several else changed[0]}


def _tuning_definition(definition: Any, injection: Injection, where: str, field: str) -> Request:
    if not _is_map(definition):
        raise _unreadable(where, field)
    _refuse_isolation(definition, where, f"{field}.EnableNetworkIsolation")
    name = f"{field}.InputDataConfig"
    channels = _sequence(definition.get("InputDataConfig"), where, name)
    if _has_bundle(channels, "ChannelName", _channel_uri, where, name):
        return definition
    _algorithm(definition, where)
    return {
        **definition,
        "InputDataConfig": _with_channel(channels, definition, injection.bundle, where, name),
        "Environment": _environment(
            definition.get("Environment"),
            _variables(injection, definition.get("RoleArn")),
            FOLDERS["tuning"],
            "tuning",
            where,
            f"{field}.Environment",
        ),
    }


_TRANSFORMS: dict[str, Callable[[Request, Injection, str], Request]] = {
    "training": _training,
    "processing": _processing,
    "transform": _transform,
    "model": _model,
    "tuning": _tuning,
}


# -------------------------------------------------------------------------------- the parts


def _variables(injection: Injection, own_role: Any) -> dict[str, Any]:
    """The variables that can't wait for `options.json`."""
    found: dict[str, Any] = {"SMSSH_ENABLE": "1"}
    if injection.transport == "ssm":
        role = own_role if injection.role is None else injection.role
        if role is not None:
            found["SMSSH_ROLE"] = role
    if injection.step is not None:
        found["SMSSH_STEP"] = injection.step
    return {**injection.environment, **found}


def _environment(
    environment: Any,
    variables: Mapping[str, Any],
    folder: str | None,
    kind: str,
    where: str,
    field: str = "Environment",
) -> dict[str, Any]:
    """The environment with ours in it; what stands there already is the user's, and stays.

    Args:
        environment: the environment so far, if any.
        variables: ours.
        folder: the bundle's folder, where PYTHONPATH is what starts it.
        kind: a key of `LIMITS`.
        where: the step or request.
        field: the member of the request.
    """
    if environment is None:
        environment = {}
    elif not _is_map(environment):
        raise _unreadable(where, field)
    ours = {name: value for name, value in variables.items() if name not in environment}
    if folder is not None:
        if "SMSSH_BUNDLE" not in environment:
            ours["SMSSH_BUNDLE"] = folder
        ours["PYTHONPATH"] = _python_path(environment.get("PYTHONPATH"), folder, where, field)
    merged = {**environment, **ours}
    # Against the entries, PYTHONPATH counts as ours only where there was none.
    added = {name: value for name, value in ours.items() if name not in environment}
    check_environment(where, kind, field, merged, added)
    if folder is not None:
        check_environment(where, kind, field, {}, {"PYTHONPATH": merged["PYTHONPATH"]})
    return merged


def _python_path(present: Any, folder: str, where: str, field: str) -> str:
    if present is None:
        return folder
    if not _is_text(present):
        raise refuse(
            where,
            f"{field}.PYTHONPATH is a pipeline variable, to which the bundle's folder can't be prepended",
            "give PYTHONPATH as a literal text, or name a ContainerEntrypoint, which is wrapped instead",
            "pythonpath-is-variable",
        )
    return f"{folder}:{present}" if present else folder


def _wrapped(entry_point: Sequence[Any], kind: str, where: str, field: str) -> list[Any]:
    """The entry point behind `run.sh`; through sh, because S3 keeps no x bits."""
    wrapper = ["/bin/sh", f"{FOLDERS[kind]}/run.sh"]
    check_count(
        where, field, len(entry_point) + len(wrapper), len(wrapper), LIMITS[kind].entry_point, "items"
    )
    return [*wrapper, *entry_point]


def _with_channel(
    channels: Sequence[Any], request: Request, bundle: str, where: str, field: str
) -> list[Any]:
    check_count(where, field, len(channels) + 1, 1, LIMITS["training"].inputs, "channels")
    source: dict[str, Any] = {
        "S3DataType": "S3Prefix",
        "S3Uri": bundle,
        "S3DataDistributionType": "FullyReplicated",
    }
    groups = _instance_groups(channels, request)
    if groups:
        source["InstanceGroupNames"] = groups
    # InputMode: the job's own may be Pipe or FastFile, and a pipe is no folder.
    return [
        *channels,
        {"ChannelName": CHANNEL, "DataSource": {"S3DataSource": source}, "InputMode": "File"},
    ]


def _instance_groups(channels: Sequence[Any], request: Request) -> list[Any]:
    """Every instance group of a heterogeneous cluster, if its channels name groups: then all have to."""
    named: list[Any] = []
    for channel in channels:
        source = _path(channel, "DataSource", "S3DataSource")
        groups = source.get("InstanceGroupNames") if _is_map(source) else None
        if _is_list(groups):
            named.extend(groups)
    if not named:
        return []
    resources = request.get("ResourceConfig")
    declared = resources.get("InstanceGroups") if _is_map(resources) else None
    if _is_list(declared):
        names = [each.get("InstanceGroupName") for each in declared if _is_map(each)]
        if names and all(name is not None for name in names):
            return names
    unique: list[Any] = []
    for name in named:
        if not (_is_text(name) and any(_is_text(other) and other == name for other in unique)):
            unique.append(name)
    return unique


def _algorithm(request: Request, where: str) -> Request:
    algorithm = request.get("AlgorithmSpecification")
    if not _is_map(algorithm):
        raise _unreadable(where, "AlgorithmSpecification")
    if algorithm.get("AlgorithmName") is not None:
        raise refuse(
            where,
            "AlgorithmSpecification.AlgorithmName names an algorithm, which takes no further channel",
            "use its training image instead, or leave SSH off here (SSHOptions(enabled=False))",
            "algorithm-resource",
        )
    return algorithm


def _refuse_isolation(holder: Request, where: str, field: str) -> None:
    if holder.get("EnableNetworkIsolation") is True:
        raise refuse(
            where,
            f"{field} is on, and an isolated container has no network to be reached through",
            "turn network isolation off for this step, or leave SSH off here (SSHOptions(enabled=False))",
            "network-isolation",
        )


def _has_bundle(
    entries: Sequence[Any], name: str, uri_of: Callable[[Any], Any], where: str, field: str
) -> bool:
    """Whether one of the inputs is a bundle of ours.

    Raises:
        SmsshError: an input of the user's has our name.
    """
    for entry in entries:
        if not _is_map(entry) or not _is_text(entry.get(name)) or entry[name] != CHANNEL:
            continue
        uri = uri_of(entry)
        if _is_text(uri) and _BUNDLE_URI.match(uri):
            return True
        raise refuse(
            where,
            f"{field} has an input named {CHANNEL!r} already, and SSH needs that name",
            "give your input another name",
            "name-taken",
        )
    return False


def _channel_uri(channel: Request) -> Any:
    return _path(channel, "DataSource", "S3DataSource", "S3Uri")


def _input_uri(entry: Request) -> Any:
    return _path(entry, "S3Input", "S3Uri")


def _source_uri(source: Request) -> Any:
    return _path(source, "S3DataSource", "S3Uri")


def _path(value: Any, *names: str) -> Any:
    for name in names:
        if not _is_map(value):
            return None
        value = value.get(name)
    return value


def _sequence(value: Any, where: str, field: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not _is_list(value):
        raise _unreadable(where, field)
    return value


def _unreadable(where: str, field: str) -> Exception:
    return refuse(
        where,
        f"{field} is missing or a pipeline variable as a whole, so that nothing can be added to it",
        "give it as a literal; its values may be pipeline variables",
        "unreadable-request",
    )


# isinstance() asks a leaf for its __class__; type() asks nothing.


def _is_text(value: Any) -> TypeGuard[str]:
    return issubclass(type(value), str)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return issubclass(type(value), (list, tuple))


def _is_map(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is a dict of the request's, and no pipeline variable of a definition."""
    if not issubclass(type(value), dict):
        return False
    if len(value) != 1:
        return True
    reference = value.get("Get")
    return _VARIABLES.isdisjoint(value) and not (_is_text(reference) and _REFERENCE.match(reference))
