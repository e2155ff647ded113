"""What SSH adds to a request. Pure functions over plain dicts in which any leaf may be a pipeline variable.

Pipeline variables of the SageMaker SDKs raise on str(), len(), hash() and `in`, answer == with False and
bool() with True, and hold their whole step, so that copying one copies the pipeline. So here containers are
copied, leaves are passed on by reference, and nothing is done to a leaf before its type is known to be str or
bool. In a pipeline definition (JSON) a variable is a dict with one key: see `values.is_map`.

What is added, by kind: the channel `smssh` with the bundle (training, processing, tuning, model), what starts
it (see `launchers`), and the few variables that must be known before the bundle's `options.json` can be read.
A model gets the bundle but not the switch: transform jobs turn it on, endpoints made from the same model stay
as they are, unless they are asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Sequence

from ...settings import RUNTIME_LIMIT
from . import image_addresses, launchers
from .launchers import FOLDERS
from .limits import LIMITS, OFF, check_count, check_environment, check_length, refuse
from .values import at, is_list, is_map, is_text

__all__ = ["CHANNEL", "KINDS", "Injection", "add_ssh", "definitions_of", "name_of"]

Request = Mapping[str, Any]

CHANNEL = "smssh"
VARIABLES = 6
"""Variables of ours in a request, at most."""
KINDS = {
    "Training": "training",
    "Processing": "processing",
    "Transform": "transform",
    "Model": "model",
    "Tuning": "tuning",
}
"""The kind of request behind each type of pipeline step that can be entered."""

_BUNDLE_URI = re.compile(r"s3://.+/[0-9a-f]{64}/\Z")
_SEVERAL = "TrainingJobDefinitions"


@dataclass(frozen=True)
class Injection:
    """What is added to a request, decided beforehand.

    Attributes:
        bundle: the S3 prefix of the bundle, ending in its digest and a slash; not used by transform requests, nor
            where `baked`.
        step: the name of the pipeline step, if there is one.
        role: role for the activation (may be a pipeline variable); None takes the request's own.
        transport: `ssm`, `none` or `native`.
        launcher: an option's `launcher`; with `baked` the image brings our code, and the request gets variables and
            nothing else.
        enable: the value of SMSSH_ENABLE; may be a pipeline variable.
        environment: more variables of the job; values may be pipeline variables.
        endpoints: whether models turn SSH on by themselves.
        repacked: whether models have the bundle in their `code/` folder.
        room: whether there is room for a variable that can be missed.
    """

    bundle: str = ""
    step: str | None = None
    role: Any = None
    transport: str = "ssm"
    launcher: str = "auto"
    enable: Any = "1"
    environment: Mapping[str, Any] = field(default_factory=dict)
    endpoints: bool = False
    repacked: bool = False
    room: bool = True

    @property
    def baked(self) -> bool:
        """Whether the image has smssh-plugin, so that the request gets variables and nothing else."""
        return self.launcher == "baked"

    @property
    def digest(self) -> str:
        """The SHA-256 of the bundle's manifest, with which its address ends."""
        return self.bundle.rstrip("/").rpartition("/")[2]


def add_ssh(kind: str, request: Request, injection: Injection) -> Request:
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
    where = name_of(kind, injection.step)
    if injection.transport == "native" and kind != "training":
        raise refuse(
            where,
            f"the native transport is SageMaker's remote debugging, which no {LIMITS[kind].call} has",
            "use SSHOptions(transport='ssm')",
            "native-is-training-only",
        )
    return _TRANSFORMS[kind](request, injection, where)


def name_of(kind: str, step: str | None) -> str:
    """A request as a person knows it: by its step, or by what it is."""
    return f"step {step!r}" if step is not None else f"the {LIMITS[kind].call}"


def definitions_of(request: Request) -> tuple[str, Sequence[Any]]:
    """The training definitions of a tuning job: the member of the request, and what it holds, as a list."""
    several = request.get(_SEVERAL)
    if is_list(several) and several:
        return _SEVERAL, several
    return "TrainingJobDefinition", [request.get("TrainingJobDefinition")]


# -------------------------------------------------------------------------------- the kinds


def _training(request: Request, injection: Injection, where: str) -> Request:
    if request.get("ServerlessJobConfig") is not None:
        raise refuse(where, "a serverless training job has no container to enter", None, "serverless")
    _refuse_isolation(request, where, "EnableNetworkIsolation")
    changed = _trained("training", request, injection, where, "", "HyperParameters")
    if changed is request or injection.transport != "native":
        return changed
    debug = request.get("RemoteDebugConfig")
    if at(debug, "EnableRemoteDebug") is False:
        raise refuse(
            where,
            "RemoteDebugConfig.EnableRemoteDebug is off, and the native transport is SageMaker's remote debugging",
            "turn it on, or use SSHOptions(transport='ssm')",
            "remote-debug-off",
        )
    return changed if debug is not None else {**changed, "RemoteDebugConfig": {"EnableRemoteDebug": True}}


def _tuning(request: Request, injection: Injection, where: str) -> Request:
    field_name, definitions = definitions_of(request)
    # The entries of all definitions count together.
    present = sum(len(found) for each in definitions if is_map(found := at(each, "Environment")))
    if present + VARIABLES * len(definitions) > LIMITS["tuning"].entries:
        injection = replace(injection, room=False)
    changed = [_tuning_definition(each, injection, where, field_name) for each in definitions]
    if all(new is old for new, old in zip(changed, definitions)):
        return request
    total = sum(len(each.get("Environment") or ()) for each in changed)
    before = sum(len(each.get("Environment") or ()) for each in definitions)
    check_count(
        where, f"{field_name}.Environment", total, total - before, LIMITS["tuning"].entries, "entries"
    )
    return {**request, field_name: changed if field_name == _SEVERAL else changed[0]}


def _tuning_definition(definition: Any, injection: Injection, where: str, field_name: str) -> Request:
    if not is_map(definition):
        raise _unreadable(where, field_name)
    _refuse_isolation(definition, where, f"{field_name}.EnableNetworkIsolation")
    return _trained("tuning", definition, injection, where, f"{field_name}.", "StaticHyperParameters")


def _trained(
    kind: str, request: Request, injection: Injection, where: str, prefix: str, parameters: str
) -> Request:
    """A training request, or a definition of a tuning job's, with bundle and environment.

    Args:
        kind: `training` or `tuning`.
        request: the request or definition.
        injection: what to add.
        where: the step or request.
        prefix: what stands before the names of members in messages.
        parameters: the member with the hyperparameters.
    """
    name = f"{prefix}InputDataConfig"
    channels = _sequence(request.get("InputDataConfig"), where, name)
    if _has_bundle(channels, "ChannelName", _channel_uri, where, name):
        return request
    algorithm = request.get("AlgorithmSpecification")
    if not is_map(algorithm):
        raise _unreadable(where, f"{prefix}AlgorithmSpecification")
    if algorithm.get("AlgorithmName") is not None:
        raise refuse(
            where,
            f"{prefix}AlgorithmSpecification.AlgorithmName names an algorithm, which takes no further channel",
            f"where it is your own, name its training image instead (TrainingImage); else {OFF}",
            "algorithm-resource",
        )
    # Only the request of a training job has an entry point (HyperParameterAlgorithmSpecification has none).
    own = "AlgorithmSpecification.ContainerEntrypoint" if kind == "training" else ""
    entry_point = algorithm.get("ContainerEntrypoint") if own else None
    named = is_list(entry_point) and len(entry_point) > 0
    image = algorithm.get("TrainingImage")
    if not named and not injection.baked:
        _refuse_built_in(image, request.get(parameters), injection, where, prefix)
    environment = _environment_of(request, where, f"{prefix}Environment")
    start = launchers.start(
        injection.launcher, injection.digest, kind, FOLDERS[kind], entry_point, environment, where, own
    )
    _refuse_no_shell(start, image, where, f"{prefix}AlgorithmSpecification.TrainingImage")
    variables = _variables(injection, request.get("RoleArn"))
    if injection.baked and _has_variables(environment, variables):
        return request
    changed = dict(request)
    if not injection.baked:
        changed["InputDataConfig"] = _with_channel(channels, request, injection.bundle, where, name)
    if start.entry_point is not None:
        changed["AlgorithmSpecification"] = {**algorithm, "ContainerEntrypoint": start.entry_point}
    variables.update(_max_runtime(request, injection, environment, kind))
    changed["Environment"] = _with_variables(
        environment, variables, start, kind, where, f"{prefix}Environment"
    )
    return changed


def _refuse_built_in(image: Any, hyperparameters: Any, injection: Injection, where: str, prefix: str) -> None:
    """Refuse an algorithm of AWS's, which may end at our channel. Who chooses a launcher knows of a script."""
    if image_addresses.is_algorithm(image, hyperparameters, scripted=injection.launcher != "auto"):
        raise refuse(
            where,
            f"{prefix}AlgorithmSpecification.TrainingImage is a built-in algorithm, which runs no code of yours and "
            "may end at a channel that it does not know",
            "where it is XGBoost with a script of yours, name that in the hyperparameter sagemaker_program, or choose "
            f"a launcher (SSHOptions(launcher='sitecustomize')); else {OFF}",
            "built-in-algorithm",
        )


def _processing(request: Request, injection: Injection, where: str) -> Request:
    network = request.get("NetworkConfig")
    if is_map(network):
        _refuse_isolation(network, where, "NetworkConfig.EnableNetworkIsolation")
    inputs = _sequence(request.get("ProcessingInputs"), where, "ProcessingInputs")
    if _has_bundle(inputs, "InputName", _input_uri, where, "ProcessingInputs"):
        return request
    specification = request.get("AppSpecification")
    if not is_map(specification):
        raise _unreadable(where, "AppSpecification")
    entry_point = specification.get("ContainerEntrypoint")
    if not (is_list(entry_point) and len(entry_point) > 0):
        _refuse_closed(specification.get("ImageUri"), where, "AppSpecification.ImageUri")
    environment = _environment_of(request, where, "Environment")
    start = launchers.start(
        injection.launcher,
        injection.digest,
        "processing",
        FOLDERS["processing"],
        entry_point,
        environment,
        where,
        "AppSpecification.ContainerEntrypoint",
    )
    _refuse_no_shell(start, specification.get("ImageUri"), where, "AppSpecification.ImageUri")
    variables = _variables(injection, request.get("RoleArn"))
    if injection.baked and _has_variables(environment, variables):
        return request
    changed = dict(request)
    if not injection.baked:
        limit = LIMITS["processing"].inputs
        check_count(where, "ProcessingInputs", len(inputs) + 1, 1, limit, "inputs")
        check_length(where, f"ProcessingInputs[{CHANNEL}].S3Input.S3Uri", injection.bundle)
        added = {
            "S3Uri": injection.bundle,
            "LocalPath": FOLDERS["processing"],
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
            "S3CompressionType": "None",
        }
        changed["ProcessingInputs"] = [*inputs, {"InputName": CHANNEL, "S3Input": added}]
    if start.entry_point is not None:
        changed["AppSpecification"] = {**specification, "ContainerEntrypoint": start.entry_point}
    variables.update(_max_runtime(request, injection, environment, "processing"))
    changed["Environment"] = _with_variables(
        environment, variables, start, "processing", where, "Environment"
    )
    return changed


def _transform(request: Request, injection: Injection, where: str) -> Request:
    # The model brings the bundle and its own role; this turns it on for this job.
    variables = _variables(injection, None)
    environment = _environment_of(request, where, "Environment")
    if _has_variables(environment, variables):
        return request
    start = launchers.Start()
    merged = _with_variables(environment, variables, start, "transform", where, "Environment")
    return {**request, "Environment": merged}


def _model(request: Request, injection: Injection, where: str) -> Request:
    _refuse_isolation(request, where, "EnableNetworkIsolation")
    containers = request.get("Containers")
    role = request.get("ExecutionRoleArn")
    if not (is_list(containers) and containers):
        container = request.get("PrimaryContainer")
        changed = _container(container, role, injection, where, "PrimaryContainer")
        return request if changed is container else {**request, "PrimaryContainer": changed}
    if len(containers) > 1 and not injection.endpoints:
        raise refuse(
            where,
            f"Containers has {len(containers)} entries, and a transform job of such a model has as many hosts of one "
            "name",
            f"ask for all of them with SSHOptions(endpoints=True), or {OFF}",
            "several-containers",
        )
    several = [
        _container(each, role, injection, where, f"Containers[{number}]")
        for number, each in enumerate(containers)
    ]
    if all(new is old for new, old in zip(several, containers)):
        return request
    return {**request, "Containers": several}


def _container(container: Any, role: Any, injection: Injection, where: str, field_name: str) -> Any:
    """A container of a model with the bundle, and whatever else it needs."""
    if not is_map(container):
        raise _unreadable(where, field_name)
    if container.get("ModelPackageName") is not None:
        raise refuse(
            where,
            f"{field_name} comes from a model package, to which no files can be added",
            f"where the package is your own, make the model from its image and artefact instead; else {OFF}",
            "model-package",
        )
    _refuse_closed(container.get("Image"), where, f"{field_name}.Image")
    name = f"{field_name}.AdditionalModelDataSources"
    sources = _sequence(container.get("AdditionalModelDataSources"), where, name)
    if _has_bundle(sources, "ChannelName", _source_uri, where, name):
        return container
    environment = _environment_of(container, where, f"{field_name}.Environment")
    place = environment.get(launchers.BUNDLE)
    if not injection.repacked and is_text(place) and place == launchers.REPACKED:
        return container
    folder = launchers.REPACKED if injection.repacked else FOLDERS["model"]
    start = launchers.start(
        injection.launcher, injection.digest, "model", folder, None, environment, where, ""
    )
    variables = _variables(injection, role)
    variables.pop("SMSSH_STEP", None)  # the name of the transform step is what counts
    if not injection.endpoints:
        # Of jobs made from the model, those that are to be entered bring the rest.
        variables = {each: value for each, value in variables.items() if each == "SMSSH_ROLE"}
    elsewhere = injection.baked or injection.repacked  # our files come by another way
    if elsewhere and all(each in environment for each in (*variables, *start.variables)):
        return container
    merged = _with_variables(environment, variables, start, "model", where, f"{field_name}.Environment")
    if elsewhere:
        return {**container, "Environment": merged}
    limit, instead = LIMITS["model"].inputs, "repack the model with the bundle (SSHOptions(repack=True))"
    check_count(where, name, len(sources) + 1, 1, limit, "data sources", instead)
    check_length(where, f"{name}[{CHANNEL}].S3DataSource.S3Uri", injection.bundle)
    # With S3Prefix the address must end in a slash (API reference, S3ModelDataSource).
    added = {"S3Uri": injection.bundle, "S3DataType": "S3Prefix", "CompressionType": "None"}
    extended = [*sources, {"ChannelName": CHANNEL, "S3DataSource": added}]
    return {**container, "AdditionalModelDataSources": extended, "Environment": merged}


_TRANSFORMS: dict[str, Callable[[Request, Injection, str], Request]] = {
    "training": _training,
    "processing": _processing,
    "transform": _transform,
    "model": _model,
    "tuning": _tuning,
}


# -------------------------------------------------------------------------------- the parts


def _variables(injection: Injection, own_role: Any) -> dict[str, Any]:
    """The variables that can't wait for `options.json`, and those that were asked for."""
    found: dict[str, Any] = {"SMSSH_ENABLE": injection.enable}
    if injection.transport == "ssm":
        role = own_role if injection.role is None else injection.role
        if role is not None:
            found["SMSSH_ROLE"] = role
    if injection.step is not None:
        found["SMSSH_STEP"] = injection.step
    return {**injection.environment, **found}


def _max_runtime(
    request: Request, injection: Injection, environment: Mapping[str, Any], kind: str
) -> dict[str, str]:
    """The variable with the job's own limit, where that is a number and there is room: a hold ends before it."""
    limit = at(request, "StoppingCondition", "MaxRuntimeInSeconds")
    if type(limit) is not int or not 0 < limit <= RUNTIME_LIMIT or not injection.room:
        return {}
    if len(environment) + VARIABLES > LIMITS[kind].entries:
        return {}
    return {"SMSSH_MAX_RUNTIME": str(limit)}


def _has_variables(environment: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Whether SSH is there already, where no bundle tells; it may have come with other options.

    The name of the step is nothing that a person would set.
    """
    return "SMSSH_STEP" in environment or all(name in environment for name in variables)


def _environment_of(holder: Request, where: str, field_name: str) -> Mapping[str, Any]:
    environment = holder.get("Environment")
    if environment is None:
        return {}
    if not is_map(environment):
        raise _unreadable(where, field_name)
    return environment


def _with_variables(
    environment: Mapping[str, Any],
    variables: Mapping[str, Any],
    start: launchers.Start,
    kind: str,
    where: str,
    field_name: str,
) -> dict[str, Any]:
    """The environment with ours in it; what stands there already is the user's, and stays.

    Args:
        environment: the environment so far.
        variables: ours.
        start: what the launcher changes.
        kind: a key of `LIMITS`.
        where: the step or request.
        field_name: the member of the request.
    """
    ours = {name: value for name, value in variables.items() if name not in environment}
    ours.update(start.variables)
    if start.python_path is not None:
        present = environment.get("PYTHONPATH")
        ours["PYTHONPATH"] = _python_path(present, start.python_path, kind, where, field_name)
    merged = {**environment, **ours}
    check_environment(where, kind, field_name, environment, merged)
    return merged


def _python_path(present: Any, folder: str, kind: str, where: str, field_name: str) -> str:
    if present is None:
        return folder
    if not is_text(present):
        raise refuse(
            where,
            f"{field_name}.PYTHONPATH is a pipeline variable, to which the bundle's folder can't be prepended",
            "give PYTHONPATH as a literal text, or "
            + ("name a ContainerEntrypoint, which is wrapped instead" if LIMITS[kind].entry_point else OFF),
            "pythonpath-is-variable",
        )
    return f"{folder}:{present}" if present else folder


def _with_channel(
    channels: Sequence[Any], request: Request, bundle: str, where: str, field_name: str
) -> list[Any]:
    check_count(where, field_name, len(channels) + 1, 1, LIMITS["training"].inputs, "channels")
    check_length(where, f"{field_name}[{CHANNEL}].DataSource.S3DataSource.S3Uri", bundle)
    source: dict[str, Any] = {
        "S3DataType": "S3Prefix",
        "S3Uri": bundle,
        "S3DataDistributionType": "FullyReplicated",
    }
    groups = _instance_groups(channels, request)
    if groups:
        source["InstanceGroupNames"] = groups
    # InputMode: the job's own may be Pipe or FastFile, and a pipe is not a folder.
    return [
        *channels,
        {"ChannelName": CHANNEL, "DataSource": {"S3DataSource": source}, "InputMode": "File"},
    ]


def _instance_groups(channels: Sequence[Any], request: Request) -> list[Any]:
    """Every instance group of a heterogeneous cluster, if its channels name groups: then all have to."""
    named: list[Any] = []
    for channel in channels:
        groups = at(channel, "DataSource", "S3DataSource", "InstanceGroupNames")
        if is_list(groups):
            named.extend(groups)
    if not named:
        return []
    declared = at(request.get("ResourceConfig"), "InstanceGroups")
    if is_list(declared):
        names = [each.get("InstanceGroupName") for each in declared if is_map(each)]
        if names and all(name is not None for name in names):
            return names
    unique: list[Any] = []
    for name in named:
        if not (is_text(name) and any(is_text(other) and other == name for other in unique)):
            unique.append(name)
    return unique


def _refuse_isolation(holder: Request, where: str, field_name: str) -> None:
    if holder.get("EnableNetworkIsolation") is True:
        raise refuse(
            where,
            f"{field_name} is on, and an isolated container has no network to be reached through",
            f"turn network isolation off for this step, or {OFF}",
            "network-isolation",
        )


def _refuse_no_shell(start: launchers.Start, image: Any, where: str, field_name: str) -> None:
    if start.entry_point is not None and image_addresses.lacks_shell(image):
        raise refuse(
            where,
            f"{field_name} is {image}, which has no /bin/sh, and a wrapped entry point starts with it",
            "use the image's variant with a shell (:debug, -dev), or, where the entry point is Python, "
            "SSHOptions(launcher='sitecustomize')",
            "no-shell",
        )


def _refuse_closed(image: Any, where: str, field_name: str) -> None:
    if image_addresses.is_closed(image):
        raise refuse(
            where,
            f"{field_name} is a closed image of AWS's (a built-in algorithm, Clarify, Model Monitor or the like), "
            "which runs no code but its own",
            OFF,
            "built-in-algorithm",
        )


def _has_bundle(
    entries: Sequence[Any], name: str, uri_of: Callable[[Any], Any], where: str, field_name: str
) -> bool:
    """Whether one of the inputs is a bundle of ours.

    Raises:
        SmsshError: an input of the user's has our name.
    """
    for entry in entries:
        if not is_map(entry) or not is_text(entry.get(name)) or entry[name] != CHANNEL:
            continue
        uri = uri_of(entry)
        if is_text(uri) and _BUNDLE_URI.match(uri):
            return True
        raise refuse(
            where,
            f"{field_name} has an input named {CHANNEL!r} already, and SSH needs that name",
            "give your input another name",
            "name-taken",
        )
    return False


def _channel_uri(channel: Request) -> Any:
    return at(channel, "DataSource", "S3DataSource", "S3Uri")


def _input_uri(entry: Request) -> Any:
    return at(entry, "S3Input", "S3Uri")


def _source_uri(source: Request) -> Any:
    return at(source, "S3DataSource", "S3Uri")


def _sequence(value: Any, where: str, field_name: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not is_list(value):
        raise _unreadable(where, field_name)
    return value


def _unreadable(where: str, field_name: str) -> Exception:
    return refuse(
        where,
        f"{field_name} is missing or a pipeline variable as a whole, so that nothing can be added to it",
        "give it as a literal; its values may be pipeline variables",
        "unreadable-request",
    )
