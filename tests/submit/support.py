"""Steps of SageMaker SDK v3, and looks at what they were compiled to."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

from smssh_plugin.submit.request.wrapper import WORDS

from .conftest import IMAGE, ROLE, SDK, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable


OURS = ("SMSSH_ENABLE", "SMSSH_MAX_RUNTIME", "SMSSH_ROLE", "SMSSH_STEP", "SMSSH_BUNDLE")


def normalised(definition: str) -> Any:
    """The definition without the time that SDK v3 puts into the keys of its uploads."""
    return json.loads(re.sub(r"-\d{14}\b", "-TIME", definition))


def without_ssh(step: Any) -> Any:
    """A compiled step with all that we add taken out."""
    step = copy.deepcopy(step)
    arguments = step["Arguments"]
    container = arguments.get("PrimaryContainer", arguments)
    for holder, field, name in (
        (arguments, "InputDataConfig", "ChannelName"),
        (arguments, "ProcessingInputs", "InputName"),
        (container, "AdditionalModelDataSources", "ChannelName"),
    ):
        if field in holder:
            holder[field] = [each for each in holder[field] if each[name] != "smssh"]
            if not holder[field]:
                del holder[field]
    environment = container.get("Environment", {})
    for name in OURS:
        environment.pop(name, None)
    if environment.get("PYTHONPATH", "").endswith("/smssh"):
        del environment["PYTHONPATH"]
    if not environment:
        container.pop("Environment", None)
    for field in ("AlgorithmSpecification", "AppSpecification"):
        entry_point = arguments.get(field, {}).get("ContainerEntrypoint", [])
        if entry_point[: len(WORDS)] == list(WORDS):
            del entry_point[: len(WORDS) + 2]
    return step


def plain(step: Any) -> Any:
    """A compiled step with no empty environment, as `without_ssh` leaves it."""
    step = copy.deepcopy(step)
    if step["Arguments"].get("Environment") == {}:
        del step["Arguments"]["Environment"]
    return step


def additions(definition: str) -> list[str]:
    """All texts in the definition that name us, in order."""
    return re.findall(r'"[^"]*(?:smssh|SMSSH)[^"]*"', definition)


def every_step(sdk: SDK, session: Any) -> list[Any]:
    model = sdk.model(session)
    return [
        sdk.processing(session),
        sdk.bare_processing(session),
        sdk.training(session),
        sdk.script_mode(session),
        model,
        sdk.transform(session, model.properties.ModelName),
    ]


def entered(pipeline: Any) -> set[str]:
    """The names of the steps with SSH."""
    return {name for name, step in steps_of(pipeline).items() if additions(json.dumps(step))}


def uri_in(step: Any) -> str:
    """The bundle that a compiled step carries."""
    (found,) = set(re.findall(r's3://[^"]*/[0-9a-f]{64}/(?=")', json.dumps(step)))
    return str(found)


def function_step(sdk: SDK, session: Any, **more: Any) -> Callable[[Any], Any]:
    from sagemaker.mlops.workflow.function_step import step

    decorator: Callable[[Any], Any] = step(
        image_uri=IMAGE, role=ROLE, instance_type="ml.m5.large", dependencies=None, **more
    )
    return decorator


def isolated(sdk: SDK, session: Any, name: str = "Isolated") -> Any:
    from sagemaker.core.network import NetworkConfig

    return sdk.bare_processing(session, name, network_config=NetworkConfig(enable_network_isolation=True))
