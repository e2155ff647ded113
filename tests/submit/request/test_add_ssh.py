"""The pure transformer: what it adds, what it refuses, and that it leaves everything else alone."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from smssh_plugin.submit.request.limits import LIMITS
from smssh_plugin.submit.request.wrapper import WORDS
from smssh_plugin.submit.warnings import Held, warnings_of

DIGEST = "a" * 64
BUNDLE = f"s3://bucket/smssh/bundles/{DIGEST}/"
OTHER = "s3://bucket/smssh/bundles/" + "b" * 64 + "/"
INJECTION = Injection(BUNDLE, step="Step")
CENTRAL = "210987654321.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"
PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"
NOT_HELD = Held(0, 0)
OPERATIONS = {
    "training": "CreateTrainingJob",
    "processing": "CreateProcessingJob",
    "transform": "CreateTransformJob",
    "model": "CreateModel",
    "tuning": "CreateHyperParameterTuningJob",
}
INPUTS = {
    "training": ("InputDataConfig",),
    "processing": ("ProcessingInputs",),
    "model": ("PrimaryContainer", "AdditionalModelDataSources"),
    "tuning": ("TrainingJobDefinition", "InputDataConfig"),
}


def _raise(*_: Any) -> Any:
    raise AssertionError("a pipeline variable was touched")


NOT_OPERATORS = {"__new__", "__init__", "__class__", "__doc__", "__init_subclass__", "__subclasshook__"}
Variable = type(
    "Variable",
    (),
    dict.fromkeys(
        (
            *(name for name in dir(object) if name not in NOT_OPERATORS),
            *(
                f"__{name}__"
                for name in [
                    "add",
                    "and",
                    "bool",
                    "bytes",
                    "call",
                    "contains",
                    "copy",
                    "deepcopy",
                    "delitem",
                    "enter",
                    "float",
                ]
            ),
            *(
                f"__{name}__"
                for name in [
                    "fspath",
                    "getitem",
                    "index",
                    "int",
                    "iter",
                    "len",
                    "mod",
                    "next",
                    "or",
                    "radd",
                    "setitem",
                ]
            ),
        ),
        _raise,
    ),
)
"""Stands for a pipeline variable, and raises whatever is done to it."""


def training(**more: Any) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "Pipe"},
        "RoleArn": "role",
        **more,
    }


def processing(**more: Any) -> dict[str, Any]:
    return {"AppSpecification": {"ImageUri": "image"}, "RoleArn": "role", **more}


def model(**container: Any) -> dict[str, Any]:
    return {"ExecutionRoleArn": "role", "PrimaryContainer": {"Image": "image", **container}}


def tuning(**more: Any) -> dict[str, Any]:
    return {"TrainingJobDefinition": training(**more)}


def channel(name: str, uri: str = "s3://bucket/data", **source: Any) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3Uri": uri, **source}}}


REQUESTS = {
    "training": training(),
    "processing": processing(),
    "transform": {"ModelName": "model"},
    "model": model(),
    "tuning": tuning(),
}


def warnings_for(
    kind: str, request: Any, injection: Injection = INJECTION, held: Held = NOT_HELD
) -> list[str]:
    changed = add_ssh(kind, request, injection)
    return [each.text for each in warnings_of(kind, request, changed, injection, held)]


def at(request: Any, *path: str) -> Any:
    for name in path:
        request = request[name]
    return request


# -------------------------------------------------------------------------------- what is added


def test_an_entry_point_is_wrapped() -> None:
    request = training(
        AlgorithmSpecification={
            "TrainingImage": "image",
            "ContainerEntrypoint": ["python3", "train.py"],
            "ContainerArguments": ["--epochs", "2"],
        },
        InputDataConfig=[channel("train")],
        Environment={"A": "b"},
    )
    assert add_ssh("training", request, INJECTION) == {
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "ContainerEntrypoint": [*WORDS, "/opt/ml/input/data/smssh", DIGEST, "python3", "train.py"],
            "ContainerArguments": ["--epochs", "2"],
        },
        "RoleArn": "role",
        "InputDataConfig": [
            channel("train"),
            {
                "ChannelName": "smssh",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": BUNDLE,
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
                "InputMode": "File",
            },
        ],
        "Environment": {"A": "b", "SMSSH_ENABLE": "1", "SMSSH_ROLE": "role", "SMSSH_STEP": "Step"},
    }


def test_without_entry_point_it_is_python_path() -> None:
    changed = add_ssh("training", training(), INJECTION)
    assert changed["AlgorithmSpecification"] == training()["AlgorithmSpecification"]
    assert changed["Environment"] == {
        "SMSSH_ENABLE": "1",
        "SMSSH_ROLE": "role",
        "SMSSH_STEP": "Step",
        "SMSSH_BUNDLE": "/opt/ml/input/data/smssh",
        "PYTHONPATH": "/run/smssh/bundle:/opt/ml/input/data/smssh",
    }


def test_python_path_of_the_request_stays_behind_ours() -> None:
    changed = add_ssh("processing", processing(Environment={"PYTHONPATH": "/mine:/too"}), INJECTION)
    assert changed["Environment"]["PYTHONPATH"] == "/run/smssh/bundle:/opt/ml/processing/smssh:/mine:/too"


def test_processing() -> None:
    request = processing(AppSpecification={"ImageUri": "image", "ContainerEntrypoint": ["python3", "a.py"]})
    changed = add_ssh("processing", request, INJECTION)
    entry_point = changed["AppSpecification"]["ContainerEntrypoint"]
    assert entry_point == [*WORDS, "/opt/ml/processing/smssh", DIGEST, "python3", "a.py"]
    (added,) = changed["ProcessingInputs"]
    assert added["S3Input"]["S3Uri"] == BUNDLE
    assert added["S3Input"]["LocalPath"] == "/opt/ml/processing/smssh"
    assert "PYTHONPATH" not in changed["Environment"]


def test_a_transform_job_gets_the_switch_and_its_model_the_bundle() -> None:
    transform = add_ssh("transform", {"ModelName": "model"}, INJECTION)
    assert transform == {"ModelName": "model", "Environment": {"SMSSH_ENABLE": "1", "SMSSH_STEP": "Step"}}
    container = add_ssh("model", model(), INJECTION)["PrimaryContainer"]
    # No switch: endpoints that are made from this model are left alone.
    assert container["Environment"] == {
        "SMSSH_ROLE": "role",
        "SMSSH_BUNDLE": "/opt/ml/additional-model-data-sources/smssh",
        "PYTHONPATH": "/run/smssh/bundle:/opt/ml/additional-model-data-sources/smssh",
    }
    (source,) = container["AdditionalModelDataSources"]
    assert source["S3DataSource"] == {"S3Uri": BUNDLE, "S3DataType": "S3Prefix", "CompressionType": "None"}


def test_a_model_of_one_listed_container() -> None:
    changed = add_ssh("model", {"Containers": [{"Image": "image"}]}, INJECTION)
    assert changed["Containers"][0]["AdditionalModelDataSources"][0]["ChannelName"] == "smssh"


def test_every_definition_of_a_tuning_job() -> None:
    request = {"TrainingJobDefinitions": [training(), training(Environment={"A": "b"})]}
    changed = add_ssh("tuning", request, INJECTION)
    for definition in changed["TrainingJobDefinitions"]:
        assert definition["InputDataConfig"][0]["ChannelName"] == "smssh"
        assert definition["Environment"]["PYTHONPATH"] == "/run/smssh/bundle:/opt/ml/input/data/smssh"


@pytest.mark.parametrize("declared", [True, False])
def test_a_heterogeneous_cluster_gets_the_bundle_on_all_groups(declared: bool) -> None:
    variable = Variable()
    groups = [{"InstanceGroupName": "a"}, {"InstanceGroupName": variable}]
    request = training(
        InputDataConfig=[
            channel("x", InstanceGroupNames=["a"]),
            channel("y", InstanceGroupNames=["a", variable]),
        ],
        ResourceConfig={"InstanceGroups": groups} if declared else {},
    )
    source = add_ssh("training", request, INJECTION)["InputDataConfig"][-1]["DataSource"]["S3DataSource"]
    assert [id(name) for name in source["InstanceGroupNames"]] == [id("a"), id(variable)]


def test_the_role_may_be_a_variable() -> None:
    variable = Variable()
    changed = add_ssh("training", training(RoleArn=variable), INJECTION)
    assert changed["Environment"]["SMSSH_ROLE"] is variable
    named = add_ssh("training", training(RoleArn=variable), Injection(BUNDLE, role="mine"))
    assert named["Environment"]["SMSSH_ROLE"] == "mine"


def test_only_the_ssm_transport_needs_a_role() -> None:
    changed = add_ssh("training", training(), Injection(BUNDLE, transport="native"))
    assert changed["RemoteDebugConfig"] == {"EnableRemoteDebug": True}
    assert "SMSSH_ROLE" not in changed["Environment"]


def test_remote_debugging_of_the_users_stays() -> None:
    given = {"EnableRemoteDebug": Variable()}
    changed = add_ssh("training", training(RemoteDebugConfig=given), Injection(BUNDLE, transport="native"))
    assert changed["RemoteDebugConfig"] is given


def test_the_switch_may_be_a_variable() -> None:
    variable = Variable()
    for kind, request in REQUESTS.items():
        changed = add_ssh(kind, request, Injection(BUNDLE, step="Step", enable=variable))
        holder = changed["TrainingJobDefinition"] if kind == "tuning" else changed
        if kind != "model":
            assert holder["Environment"]["SMSSH_ENABLE"] is variable


def test_endpoints_are_entered_on_request() -> None:
    container = add_ssh("model", model(), Injection(BUNDLE, endpoints=True))["PrimaryContainer"]
    assert container["Environment"]["SMSSH_ENABLE"] == "1"
    several = {
        "ExecutionRoleArn": "role",
        "Containers": [{"Image": "a"}, {"Image": "b", "Mode": "MultiModel"}],
    }
    changed = add_ssh("model", several, Injection(BUNDLE, endpoints=True))
    for container in changed["Containers"]:
        assert container["AdditionalModelDataSources"][0]["ChannelName"] == "smssh"
        assert container["Environment"]["SMSSH_ENABLE"] == "1"
    assert changed["Containers"][1]["Mode"] == "MultiModel"
    assert add_ssh("model", changed, Injection(BUNDLE, endpoints=True)) is changed


def test_a_repacked_model_has_the_bundle_in_its_code_folder() -> None:
    injection = Injection(BUNDLE, repacked=True)
    full = [{"ChannelName": f"c{number}"} for number in range(LIMITS["model"].inputs)]
    before = model(AdditionalModelDataSources=full)
    changed = add_ssh("model", before, injection)
    assert changed["PrimaryContainer"] == {
        **before["PrimaryContainer"],
        "Environment": {
            "SMSSH_ROLE": "role",
            "SMSSH_BUNDLE": "/opt/ml/model/code/smssh",
            "PYTHONPATH": "/run/smssh/bundle:/opt/ml/model/code/smssh",
        },
    }
    assert add_ssh("model", changed, injection) is changed


def test_what_the_user_set_stays() -> None:
    own = {"SMSSH_ENABLE": "0", "SMSSH_ROLE": "another"}
    changed = add_ssh("training", training(Environment=own), INJECTION)
    assert {**changed["Environment"], **own} == changed["Environment"]


@pytest.mark.parametrize("kind", REQUESTS)
def test_once_is_enough(kind: str) -> None:
    once = add_ssh(kind, REQUESTS[kind], INJECTION)
    assert add_ssh(kind, once, INJECTION) is once
    assert add_ssh(kind, once, Injection(OTHER, step="Step")) is once


@pytest.mark.parametrize("kind", ["training", "processing", "transform"])
def test_the_options_that_came_first_stay(kind: str) -> None:
    """Where there is no bundle to be known by: a decorated step, and a client that is enabled."""
    once = add_ssh(kind, REQUESTS[kind], replace(INJECTION, launcher="baked"))
    later = Injection(environment={"MORE": "x"}, launcher="baked")
    assert add_ssh(kind, once, later) is once


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_request_itself_is_not_changed(kind: str) -> None:
    before = copy.deepcopy(REQUESTS[kind])
    add_ssh(kind, REQUESTS[kind], INJECTION)
    assert REQUESTS[kind] == before


# -------------------------------------------------------------------------------- what is refused


def refusal(kind: str, request: Any, injection: Injection = INJECTION) -> SmsshError:
    with pytest.raises(SmsshError) as caught:
        add_ssh(kind, request, injection)
    assert caught.value.message.startswith("step 'Step': ")
    return caught.value


@pytest.mark.parametrize(
    ("kind", "request_", "field"),
    [
        ("training", training(EnableNetworkIsolation=True), "EnableNetworkIsolation"),
        (
            "processing",
            processing(NetworkConfig={"EnableNetworkIsolation": True}),
            "NetworkConfig.EnableNetworkIsolation",
        ),
        ("model", {**model(), "EnableNetworkIsolation": True}, "EnableNetworkIsolation"),
        ("tuning", tuning(EnableNetworkIsolation=True), "TrainingJobDefinition.EnableNetworkIsolation"),
    ],
)
def test_network_isolation(kind: str, request_: Any, field: str) -> None:
    error = refusal(kind, request_)
    assert error.reference == "network-isolation"
    assert f" {field} is on" in error.message


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("training", training(EnableNetworkIsolation=Variable())),
        ("training", training(EnableNetworkIsolation={"Get": "Parameters.Isolated"})),
        ("processing", processing(NetworkConfig={"EnableNetworkIsolation": Variable()})),
        ("model", {**model(), "EnableNetworkIsolation": Variable()}),
        ("tuning", tuning(EnableNetworkIsolation=Variable())),
    ],
)
def test_network_isolation_by_a_variable_is_a_warning(kind: str, request_: Any) -> None:
    warning = warnings_for(kind, request_)[0]
    assert "EnableNetworkIsolation is a pipeline variable" in warning


@pytest.mark.parametrize("kind", REQUESTS)
def test_nothing_to_be_cautious_about(kind: str) -> None:
    request = json.loads(json.dumps(REQUESTS[kind]).replace('"image"', f'"{PYTORCH}"'))
    assert warnings_for(kind, request) == []
    assert warnings_for(kind, {**request, "EnableNetworkIsolation": False}) == []


@pytest.mark.parametrize("kind", ["training", "processing", "model", "tuning"])
def test_inputs_have_a_limit(kind: str) -> None:
    limit = LIMITS[kind].inputs
    request = copy.deepcopy(REQUESTS[kind])
    holder = at(request, *INPUTS[kind][:-1])
    field = INPUTS[kind][-1]
    holder[field] = [{"ChannelName": f"c{number}"} for number in range(limit - 1)]
    assert len(at(add_ssh(kind, request, INJECTION), *INPUTS[kind])) == limit
    holder[field].append({"ChannelName": "last"})
    error = refusal(kind, request)
    assert f"{field} has {limit} " in error.message
    assert error.message.endswith(f"SageMaker takes {limit}")
    assert "take 1 out" in (error.hint or "")


@pytest.mark.parametrize(
    ("kind", "added"), [("training", 5), ("processing", 5), ("transform", 2), ("tuning", 5)]
)
def test_environments_have_a_limit(kind: str, added: int) -> None:
    limit = LIMITS[kind].entries
    request = copy.deepcopy(REQUESTS[kind])
    holder = request["TrainingJobDefinition"] if kind == "tuning" else request
    holder["Environment"] = {f"V{number}": "x" for number in range(limit - added)}
    add_ssh(kind, request, INJECTION)
    holder["Environment"]["ONE_MORE"] = "x"
    error = refusal(kind, request)
    assert error.reference == "too-many-entries"
    assert f"Environment has {limit - added + 1} entries and SSH adds {added}" in error.message


def test_the_definitions_of_a_tuning_job_share_a_limit() -> None:
    environment = {f"V{number}": "x" for number in range(20)}
    request = {"TrainingJobDefinitions": [training(Environment=environment) for _ in range(2)]}
    assert refusal("tuning", request).reference == "too-many-entries"


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("training", "InputDataConfig[smssh].DataSource.S3DataSource.S3Uri"),
        ("processing", "ProcessingInputs[smssh].S3Input.S3Uri"),
        ("model", "PrimaryContainer.AdditionalModelDataSources[smssh].S3DataSource.S3Uri"),
        ("tuning", "TrainingJobDefinition.InputDataConfig[smssh].DataSource.S3DataSource.S3Uri"),
    ],
)
def test_addresses_have_a_limit(kind: str, field: str) -> None:
    bundle = "s3://bucket/" + "p" * (1024 - 12 - 66) + "/" + "a" * 64 + "/"
    add_ssh(kind, REQUESTS[kind], Injection(bundle, step="Step"))
    error = refusal(kind, REQUESTS[kind], Injection(bundle.replace("/p", "/pp"), step="Step"))
    assert error.reference == "address-too-long"
    assert f" {field} would have 1025 characters; SageMaker takes 1024" in error.message
    assert "SSHOptions(bundle_prefix=" in (error.hint or "")


def test_the_environment_of_a_model_has_a_limit_as_a_whole() -> None:
    own = {f"V{number:02}": "x" * 1000 for number in range(32)}
    add_ssh("model", model(Environment=own), INJECTION)
    error = refusal("model", model(Environment={**own, "MORE": "x" * 600, "VARIABLE": Variable()}))
    assert error.reference == "environment-too-large"
    assert "PrimaryContainer.Environment would have 3" in error.message
    assert "SageMaker takes 32768" in error.message


def test_what_is_too_much_already_is_left_to_the_service() -> None:
    own = {f"V{number:02}": "x" * 1000 for number in range(40)}
    add_ssh("model", model(Environment=own), INJECTION)
    add_ssh("processing", processing(Environment={"LONG": "x" * 300}), INJECTION)


def test_a_model_with_all_its_data_sources_can_be_repacked_instead() -> None:
    full = [{"ChannelName": f"c{number}"} for number in range(LIMITS["model"].inputs)]
    error = refusal("model", model(AdditionalModelDataSources=full))
    assert error.reference == "too-many-data-sources"
    assert "SSHOptions(repack=True)" in (error.hint or "")


@pytest.mark.parametrize("name", ["kmeans", "linear-learner", "sagemaker-xgboost"])
@pytest.mark.parametrize("kind", ["training", "tuning"])
def test_built_in_algorithms(kind: str, name: str) -> None:
    image = f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{name}:1"
    specification = {"TrainingImage": image}
    role = "arn:aws:iam::123456789012:role/job"
    request = training(AlgorithmSpecification=specification, RoleArn=role)
    error = refusal(kind, {"TrainingJobDefinition": request} if kind == "tuning" else request)
    assert error.reference == "built-in-algorithm"
    assert "AlgorithmSpecification.TrainingImage is a built-in algorithm" in error.message


AWS_IMAGES = (
    "linear-learner",
    "blazingtext",
    "kmeans",
    "sagemaker-clarify-processing",
    "sagemaker-model-monitor-analyzer",
)


@pytest.mark.parametrize("name", AWS_IMAGES)
def test_closed_images_are_refused_as_models_and_processors_too(name: str) -> None:
    image = f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{name}:1"
    error = refusal("model", model(Image=image))
    assert error.reference == "built-in-algorithm"
    assert "Image is a closed image of AWS's" in error.message
    bare = processing()
    bare["AppSpecification"] = {"ImageUri": image}
    error = refusal("processing", bare)
    assert error.reference == "built-in-algorithm"
    assert "AppSpecification.ImageUri is a closed image of AWS's" in error.message


@pytest.mark.parametrize(
    "change",
    [
        # Of one's own, with that name and in an account for images.
        {"AlgorithmSpecification": {"TrainingImage": CENTRAL}},
        {"AlgorithmSpecification": {"TrainingImage": CENTRAL}, "RoleArn": Variable()},
        {
            "AlgorithmSpecification": {
                "TrainingImage": "382416733822.dkr.ecr.us-east-1.amazonaws.com/my-kmeans:1"
            }
        },
        {"AlgorithmSpecification": {"TrainingImage": "registry/kmeans"}},
        {"AlgorithmSpecification": {"TrainingImage": Variable()}},
    ],
)
def test_what_is_no_built_in_algorithm(change: Any) -> None:
    image = "382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"
    role = "arn:aws:iam::123456789012:role/job"
    request = training(**{"AlgorithmSpecification": {"TrainingImage": image}, "RoleArn": role, **change})
    assert add_ssh("training", request, INJECTION)["InputDataConfig"]


@pytest.mark.parametrize("name", ["kmeans", "xgboost"])
def test_a_built_in_algorithm_does_not_end_at_variables(name: str) -> None:
    image = f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{name}:1"
    request = training(AlgorithmSpecification={"TrainingImage": image})
    changed = add_ssh("training", request, replace(INJECTION, launcher="baked"))
    assert changed["Environment"]["SMSSH_ENABLE"] == "1"
    assert changed.get("InputDataConfig") == request.get("InputDataConfig")


def test_who_chooses_a_launcher_knows_that_xgboost_has_a_script() -> None:
    chosen = replace(INJECTION, launcher="sitecustomize")
    requests = [
        training(
            AlgorithmSpecification={
                "TrainingImage": f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{name}:1"
            },
            HyperParameters=Variable(),
        )
        for name in ("xgboost", "kmeans")
    ]
    assert add_ssh("training", requests[0], chosen) is not requests[0]
    assert refusal("training", requests[1], chosen).reference == "built-in-algorithm"


@pytest.mark.parametrize("field", ["HyperParameters", "StaticHyperParameters"])
def test_xgboost_with_a_script_is_a_framework(field: str) -> None:
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
    request = training(
        AlgorithmSpecification={"TrainingImage": image}, **{field: {"sagemaker_program": "train.py"}}
    )
    kind = "training" if field == "HyperParameters" else "tuning"
    whole = request if kind == "training" else {"TrainingJobDefinition": request}
    assert add_ssh(kind, whole, INJECTION) is not whole


def test_remote_debugging_that_is_off() -> None:
    injection = Injection(BUNDLE, step="Step", transport="native")
    error = refusal("training", training(RemoteDebugConfig={"EnableRemoteDebug": False}), injection)
    assert error.reference == "remote-debug-off"
    assert "RemoteDebugConfig.EnableRemoteDebug is off" in error.message


def test_entry_points_have_a_limit() -> None:
    request = processing(AppSpecification={"ContainerEntrypoint": ["x"] * 99})
    assert refusal("processing", request).reference == "too-many-items"


@pytest.mark.parametrize("kind", ["processing", "training"])
def test_values_have_a_limit(kind: str) -> None:
    limit = LIMITS[kind].value
    request = {**REQUESTS[kind], "RoleArn": "r" * (limit + 1)}
    error = refusal(kind, request)
    assert error.reference == "value-too-long"
    assert "Environment.SMSSH_ROLE" in error.message
    too_long = {**REQUESTS[kind], "Environment": {"PYTHONPATH": "/" * limit}}
    assert "Environment.PYTHONPATH" in refusal(kind, too_long).message


@pytest.mark.parametrize("kind", sorted(LIMITS))
def test_names_have_a_limit(kind: str) -> None:
    limit = LIMITS[kind].name
    more = {"endpoints": kind == "model"}
    add_ssh(kind, REQUESTS[kind], Injection(BUNDLE, step="Step", environment={"N" * limit: "x"}, **more))
    error = refusal(
        kind, REQUESTS[kind], Injection(BUNDLE, step="Step", environment={"N" * (limit + 1): "x"}, **more)
    )
    assert error.reference == "name-too-long"
    assert "Environment.NNNN" in error.message
    assert f"{limit + 1} characters; SageMaker takes {limit}" in error.message


@pytest.mark.parametrize(
    ("kind", "request_", "reference"),
    [
        ("training", training(Environment={"PYTHONPATH": Variable()}), "pythonpath-is-variable"),
        ("training", training(Environment=Variable()), "unreadable-request"),
        ("training", training(Environment={"Get": "Parameters.Environment"}), "unreadable-request"),
        ("training", training(InputDataConfig=Variable()), "unreadable-request"),
        ("training", {"RoleArn": "role"}, "unreadable-request"),
        ("training", training(AlgorithmSpecification={"AlgorithmName": "a"}), "algorithm-resource"),
        ("training", training(ServerlessJobConfig={}), "serverless"),
        ("training", training(InputDataConfig=[channel("smssh")]), "name-taken"),
        ("processing", processing(ProcessingInputs=[{"InputName": "smssh"}]), "name-taken"),
        ("processing", {"RoleArn": "role"}, "unreadable-request"),
        ("model", {"Containers": [{}, {}]}, "several-containers"),
        ("model", {}, "unreadable-request"),
        ("model", model(ModelPackageName="package"), "model-package"),
        ("tuning", {}, "unreadable-request"),
    ],
)
def test_what_else_cannot_work(kind: str, request_: Any, reference: str) -> None:
    assert refusal(kind, request_).reference == reference


@pytest.mark.parametrize("kind", ["processing", "transform", "model", "tuning"])
def test_native_is_for_training(kind: str) -> None:
    error = refusal(kind, REQUESTS[kind], Injection(BUNDLE, step="Step", transport="native"))
    assert error.reference == "native-is-training-only"


def test_requests_without_a_step_are_named_by_what_they_are() -> None:
    with pytest.raises(SmsshError, match=r"^the processing job: NetworkConfig"):
        add_ssh("processing", processing(NetworkConfig={"EnableNetworkIsolation": True}), Injection(BUNDLE))


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        ("gcr.io/distroless/python3-debian12", True),
        ("cgr.dev/chainguard/python:latest", True),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/distroless/python3@sha256:abc", True),
        ("gcr.io/distroless/python3-debian12:debug", False),
        ("cgr.dev/chainguard/python:latest-dev", False),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1", False),
    ],
)
@pytest.mark.parametrize("kind", ["training", "processing"])
def test_an_image_that_is_known_to_have_no_shell(kind: str, image: str, refused: bool) -> None:
    where, field = {
        "training": ("AlgorithmSpecification", "TrainingImage"),
        "processing": ("AppSpecification", "ImageUri"),
    }[kind]
    request = {where: {field: image, "ContainerEntrypoint": ["python3", "a.py"]}}
    if not refused:
        assert add_ssh(kind, request, INJECTION) is not request
        return
    with pytest.raises(SmsshError, match="has no /bin/sh") as caught:
        add_ssh(kind, request, INJECTION)
    assert caught.value.reference == "no-shell"
    # Python starts us there without one.
    changed = add_ssh(kind, request, replace(INJECTION, launcher="sitecustomize"))
    assert changed[where]["ContainerEntrypoint"] == ["python3", "a.py"]


def limited(kind: str, limit: Any, count: int = 0) -> Any:
    """A request of a kind that has its own limit, and as many variables."""
    environment = {f"V{number}": "" for number in range(count)}
    condition = {"StoppingCondition": {"MaxRuntimeInSeconds": limit}, "Environment": environment}
    if kind == "processing":
        return {"AppSpecification": {"ImageUri": "image"}, "RoleArn": "role", **condition}
    training = {"AlgorithmSpecification": {"TrainingImage": "image"}, "RoleArn": "role", **condition}
    return {"TrainingJobDefinition": training} if kind == "tuning" else training


def told(kind: str, request: Any, **asked: Any) -> Any:
    """What the job is told of its own limit."""
    changed = add_ssh(kind, request, Injection(BUNDLE, step="Step", **asked))
    holder = changed["TrainingJobDefinition"] if kind == "tuning" else changed
    assert 3 <= len(set(holder["Environment"]) - {f"V{n}" for n in range(100)}) <= 6
    return holder["Environment"].get("SMSSH_MAX_RUNTIME")


@pytest.mark.parametrize("kind", ["training", "processing", "tuning"])
def test_a_job_is_told_its_own_limit(kind: str) -> None:
    assert told(kind, limited(kind, 3600)) == "3600"
    assert told(kind, limited(kind, 3600), launcher="baked") == "3600"
    for limit in (object(), {"Get": "Parameters.Limit"}, "3600", True, 0, -1, 10**9, 3600.0, None):
        assert told(kind, limited(kind, limit)) is None
    changed = add_ssh(kind, limited(kind, 3600), Injection(BUNDLE, step="Step"))
    assert add_ssh(kind, changed, Injection(BUNDLE, step="Step")) is changed


@pytest.mark.parametrize(("kind", "count"), [("training", 95), ("processing", 95), ("tuning", 43)])
def test_a_limit_that_has_no_room_is_left_out(kind: str, count: int) -> None:
    assert told(kind, limited(kind, 3600, count)) is None
    assert told(kind, limited(kind, 3600, count - 1)) == "3600"


def test_many_definitions_are_not_refused_for_it() -> None:
    several = {"TrainingJobDefinitions": [limited("training", 3600)] * 9}
    changed = add_ssh("tuning", several, Injection(BUNDLE, step="Step"))
    assert "SMSSH_MAX_RUNTIME" not in changed["TrainingJobDefinitions"][0]["Environment"]
    few = {"TrainingJobDefinitions": [limited("training", 3600 + n) for n in range(8)]}
    changed = add_ssh("tuning", few, Injection(BUNDLE, step="Step"))
    limits = [each["Environment"]["SMSSH_MAX_RUNTIME"] for each in changed["TrainingJobDefinitions"]]
    assert limits == [str(3600 + n) for n in range(8)]


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, {"launcher": "wrap"}),
        ({"PYTHONPATH": Variable()}, {}),
        ({"PYTHONPATH": "/x:" * 3500}, {}),
    ],
)
@pytest.mark.parametrize("kind", ["model", "tuning"])
def test_who_has_no_entry_point_is_not_told_to_name_it(
    kind: str, environment: dict[str, Any], asked: dict[str, Any]
) -> None:
    """CreateModel has none, and neither has a definition of a tuning job."""
    make = {"model": model, "tuning": tuning}[kind]
    hint = (
        refusal(kind, make(Environment=environment), Injection(BUNDLE, step="Step", **asked)).hint or ""
    ).lower()
    assert hint
    assert "entry" not in hint
    named = (
        refusal("training", training(Environment=environment), Injection(BUNDLE, step="Step", **asked)).hint
        or ""
    ).lower()
    assert "entry" in named


def test_a_model_that_was_repacked_has_the_bundle() -> None:
    once = add_ssh("model", model(), Injection(BUNDLE, repacked=True))
    assert add_ssh("model", once, Injection(OTHER)) is once
