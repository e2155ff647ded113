"""What is said of requests that are sent all the same, and that it is said once."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from smssh_plugin.submit.warnings import Held, RequestWarning, cache_warning, gathered, say, warnings_of

BUNDLE = "s3://bucket/smssh/bundles/" + "a" * 64 + "/"
PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6"
CENTRAL = "210987654321.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:ours"
MINE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:mine"
ROLE = "arn:aws:iam::123456789012:role/job"
NOT_HELD = Held(0, 0)
KINDS = ("training", "processing", "tuning", "model")


def request(kind: str, image: Any = PYTORCH, **more: Any) -> dict[str, Any]:
    training = {"AlgorithmSpecification": {"TrainingImage": image}, "RoleArn": ROLE, **more}
    if kind == "training":
        return training
    if kind == "tuning":
        return {"TrainingJobDefinitions": [training, training]}
    if kind == "processing":
        network = {name: more.pop(name) for name in ("VpcConfig",) if name in more}
        return {
            "AppSpecification": {"ImageUri": image},
            "RoleArn": ROLE,
            **({"NetworkConfig": network} if network else {}),
            **more,
        }
    container = {
        "Image": image,
        **({"Environment": more.pop("Environment")} if "Environment" in more else {}),
    }
    return {"PrimaryContainer": container, "ExecutionRoleArn": ROLE, **more}


def of(kind: str, before: Any, held: Held = NOT_HELD, **injection: Any) -> list[str]:
    given = Injection(BUNDLE, step="Step", **injection)
    return [each.text for each in warnings_of(kind, before, add_ssh(kind, before, given), given, held)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_say(kind: str) -> None:
    assert of(kind, request(kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_no_entry_point_is_not_told_to_name_it(kind: str) -> None:
    environment = {"PYTHONPATH": {"Get": "Parameters.Path"}}
    with pytest.raises(SmsshError) as caught:
        of(kind, request(kind, MINE, Environment=environment))
    assert caught.value.reference == "pythonpath-is-variable"
    assert ("ContainerEntrypoint" in str(caught.value.hint)) is (kind in ("training", "processing"))
    with pytest.raises(SmsshError) as caught:
        of(kind, request(kind), launcher="wrap")
    assert caught.value.reference == "no-entry-point"
    assert ("name the entry point" in str(caught.value.hint)) is (kind in ("training", "processing"))


def with_entry_point(kind: str, *words: Any) -> dict[str, Any]:
    before = request(kind)
    before["AppSpecification" if kind == "processing" else "AlgorithmSpecification"][
        "ContainerEntrypoint"
    ] = list(words)
    return before


HELD = Held(0, 60, after=True)


@pytest.mark.parametrize("kind", ["training", "processing"])
@pytest.mark.parametrize(
    "words",
    [
        ("/init",),
        ("/sbin/init", "--log-level=err"),
        ("/usr/lib/systemd/systemd",),
        ("/bin/sh", "-c", "[ $$ = 1 ] || exit 100; exec python train.py"),
        ("/init", {"Get": "Parameters.Argument"}),
    ],
)
def test_an_entry_point_that_insists_on_being_process_1_is_not_held(kind: str, words: Any) -> None:
    before = with_entry_point(kind, *words)
    (text,) = of(kind, before, HELD)
    assert text.startswith(
        "its entry point insists on being process 1, so the job can be entered, but not held"
    )
    assert repr(words[0]) in text
    assert of(kind, before) == [], "nobody asked for a hold"
    assert of(kind, before, Held(60, 60)) == [], "it is held before it starts"


@pytest.mark.parametrize("kind", ["training", "processing"])
@pytest.mark.parametrize(
    "words",
    [("python", "init.py"), ({"Get": "Parameters.Program"},), ("/bin/sh", "-c", {"Get": "Parameters.Text"})],
)
def test_an_entry_point_that_does_not_is_held(kind: str, words: Any) -> None:
    assert of(kind, with_entry_point(kind, *words), HELD) == []


def test_files_of_this_machine_are_not_the_jobs(tmp_path: Any) -> None:
    (tmp_path / "run.sh").write_text("[ $$ = 1 ] || exit 100\n")
    assert of("training", with_entry_point("training", str(tmp_path / "run.sh")), HELD) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_vpc_needs_endpoints(kind: str) -> None:
    before = request(kind, VpcConfig={"Subnets": ["s"], "SecurityGroupIds": ["g"]})
    (text,) = of(kind, before)
    field = "NetworkConfig.VpcConfig" if kind == "processing" else "VpcConfig"
    assert text.startswith(f"{field} is set: ")
    assert "the interface endpoints ssm and ssmmessages, and the gateway" in text
    assert of(kind, before, transport="none") == []


def test_a_vpc_with_the_native_transport_needs_one() -> None:
    (text,) = of("training", request("training", VpcConfig={}), transport="native")
    assert "endpoints ssmmessages, and the gateway endpoint of S3" in text


@pytest.mark.parametrize("image", [MINE, CENTRAL, "mine", object(), {"Get": "Parameters.Image"}])
@pytest.mark.parametrize("kind", KINDS)
def test_the_images_python_path_is_lost(kind: str, image: Any) -> None:
    (text,) = of(kind, request(kind, image))
    assert "takes the place of the image's own" in text
    assert of(kind, request(kind, image, Environment={"PYTHONPATH": "/mine"})) == []
    assert of(kind, request(kind, image), launcher="bash_env") == []
    assert of(kind, request(kind, image), launcher="baked") == []


def test_a_wrapped_entry_point_hides_no_python_path() -> None:
    before = {"AppSpecification": {"ImageUri": MINE, "ContainerEntrypoint": ["x"]}, "RoleArn": ROLE}
    assert of("processing", before) == []


@pytest.mark.parametrize("kind", ["training", "processing", "tuning"])
def test_a_hold_does_not_stop_the_clock(kind: str) -> None:
    before = request(kind, StoppingCondition={"MaxRuntimeInSeconds": 3600})
    (text,) = of(kind, before, Held(0, 14400))
    assert text.startswith(
        "a hold of up to 14400 s in all may be cut short: StoppingCondition.MaxRuntimeInSeconds"
    )
    assert "ends the job 3600 s after its start" in text
    assert "every hold ends 3300 s after it at the latest" in text
    assert "hold_max_seconds" in text
    assert of(kind, before, Held(600, 0)) == []
    # What the end of a job takes is taken off.
    assert of(kind, before, Held(0, 3299)) == []
    assert of(kind, before, Held(0, 3300))
    assert of(kind, before, Held(600, 3000))[0].startswith("a wait and a hold of up to 3600 s")
    assert of(kind, request(kind, StoppingCondition={"MaxRuntimeInSeconds": object()}), Held(0, 14400)) == []


def test_a_tuning_job_has_a_clock_of_its_own() -> None:
    limits = {"MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 3600}
    before = {**request("tuning"), "HyperParameterTuningJobConfig": {"ResourceLimits": limits}}
    (text,) = of("tuning", before, Held(0, 14400))
    assert (
        "HyperParameterTuningJobConfig.ResourceLimits.MaxRuntimeInSeconds ends the job 3600 s after its start"
        in text
    )


@pytest.mark.parametrize("image", [MINE, {"Get": "Parameters.Image"}])
def test_the_python_path_is_the_images(image: Any) -> None:
    """Said of the image, once, whatever steps run in it."""
    given = Injection(BUNDLE, step="Step")
    found = [
        warnings_of(kind, request(kind, image), add_ssh(kind, request(kind, image), given), given, NOT_HELD)
        for kind in KINDS
    ]
    assert found[0] == found[1] == found[2] == found[3]
    assert (f"if {MINE} has one" if image == MINE else "if the image has one") in found[0][0].rest
    assert not found[0][0].each


def test_spot_capacity_and_a_hold() -> None:
    before = request("training", EnableManagedSpotTraining=True)
    (text,) = of("training", before, Held(0, 600))
    assert "spot" in text
    assert of("training", before) == []
    assert of("training", request("training", EnableManagedSpotTraining=object()), Held(0, 600)) == []


def test_remote_debugging_by_a_variable() -> None:
    before = request("training", RemoteDebugConfig={"EnableRemoteDebug": object()})
    (text,) = of("training", before, transport="native")
    assert "RemoteDebugConfig.EnableRemoteDebug is a pipeline variable" in text
    assert of("training", before) == []


def test_remote_debugging_and_images_that_it_is_not_for() -> None:
    kmeans = "382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"
    before = request("training", kmeans)
    before["AlgorithmSpecification"]["ContainerEntrypoint"] = ["python3", "mine.py"]
    (text,) = of("training", before, transport="native")
    assert "not for images of built-in algorithms" in text
    assert of("training", before) == []


def test_caching_names_what_is_in_the_key() -> None:
    warning = cache_warning("training")
    assert warning is not None
    assert "a cache hit starts no container" in warning.headline
    assert "(InputDataConfig, Environment and AlgorithmSpecification)" in warning.rest
    assert cache_warning("model") is None


# -------------------------------------------------------------------------------- saying it


ONE, TWO = RequestWarning("one", ", and so on"), RequestWarning("two")
SHARED = RequestWarning("of the image", "; do this", each=False)


def saying(*what: tuple[str, list[RequestWarning]], at_once: bool = False) -> list[str]:
    """What is warned of where all this is said, one after the other or at once."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        with gathered() if at_once else contextlib.nullcontext():
            for subject, texts in what:
                say(subject, texts)
    assert all(warning.category is SmsshWarning for warning in record)
    return [str(warning.message) for warning in record]


def test_once_each_and_the_whole_once() -> None:
    given = [("step 'A'", [ONE, TWO]), ("step 'B'", [ONE])]
    assert saying(*given, *given) == ["step 'A': one, and so on", "step 'A': two", "step 'B': one"]


def test_what_is_shared_is_said_of_the_first() -> None:
    assert saying(("step 'A'", [SHARED]), ("step 'B'", [SHARED])) == ["step 'A': of the image; do this"]


def test_of_several_at_once() -> None:
    closed = RequestWarning("closed")
    given = [
        ("step 'A'", [ONE, SHARED]),
        ("no SSH for step 'C'", [closed]),
        ("step 'B'", [ONE, TWO, SHARED]),
        ("no SSH for step 'D'", [closed]),
        ("step 'C'", [ONE]),
        ("the model", [TWO]),
    ]
    assert saying(*given, at_once=True) == [
        "steps 'A', 'B' and 'C': one, and so on",
        "steps 'A' and 'B': of the image; do this",
        "no SSH for steps 'C' and 'D': closed",
        "step 'B', the model: two",
    ]
    assert saying(*given, at_once=True) == []


def test_of_further_ones_at_once() -> None:
    """Of another pipeline, or after one was added."""
    saying(("step 'A'", [ONE, SHARED]))
    given = [(f"step '{name}'", [ONE, SHARED]) for name in "ABC"]
    assert saying(*given, at_once=True) == ["steps 'B' and 'C': one"]


def test_what_keeps_people_out_is_said_of_each_pipeline_once() -> None:
    closed = RequestWarning("closed", closed=True)

    def compiled(name: str) -> list[str]:
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            with gathered(name), gathered():
                say("no SSH for step 'A'", [closed])
                say("no SSH for step 'B'", [closed])
                say("step 'A'", [SHARED])
        return [str(warning.message) for warning in record]

    first = "no SSH for steps 'A' and 'B' of pipeline 'q1': closed"
    assert compiled("q1") == [first, "step 'A': of the image; do this"]
    assert compiled("q2") == [first.replace("q1", "q2")]
    assert compiled("q1") == compiled("q2") == []


def test_one_inside_of_another_waits_for_it() -> None:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        with gathered():
            with gathered():
                say("step 'A'", [ONE])
            assert record == []
    assert len(record) == 1


def failing() -> None:
    with gathered():
        say("step 'A'", [ONE])
        raise ValueError("broken")


def test_it_is_said_even_where_the_compilation_fails() -> None:
    with (
        pytest.warns(SmsshWarning, match="step 'A': one, and so on"),
        pytest.raises(ValueError, match="broken"),
    ):
        failing()


@pytest.mark.parametrize("at_once", [True, False])
def test_the_line_is_the_users(at_once: bool) -> None:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        with gathered() if at_once else contextlib.nullcontext():
            say("step 'A'", [ONE])
    assert record[0].filename == __file__
