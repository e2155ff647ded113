"""A step of our own that repacks a model with the bundle, for models that the SDK does not repack. Pure.

It is made as the SDK makes its own (`_RepackModelStep`): a training job reads the artefact and puts out one that has
more in its `code/` folder. This one runs in the model's own image, with the model's role and subnets, and is a shell's
work: the image needs `/bin/sh`, `tar` and `gzip`. It takes as long as a small training job takes to start and to copy
the artefact twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from ..manifest import MANIFEST
from .request import image_addresses
from .request.add_ssh import CHANNEL
from .request.limits import refuse
from .request.values import at, is_list, is_map

if TYPE_CHECKING:
    from ..errors import SmsshError

__all__ = ["problem", "with_repack_step"]

Step = Mapping[str, Any]

ARTEFACT = "artefact"
INSTANCE, VOLUME, LIMIT = "ml.m5.large", 30, 86400
"""As the SDK's: the type of instance, gigabytes of its volume, and seconds that it may run."""
SCRIPT = (
    f"cd /opt/ml/input/data; f={ARTEFACT}/model.tar.gz; [ -f $f ] || f=$(ls -d {ARTEFACT}/* | head -n 1); "
    'd=/opt/ml/model/code; mkdir -p $d; tar -xzf "$f" -C /opt/ml/model; '
    f"o=$d/{CHANNEL}; [ ! -e $o ] || rm $o/{MANIFEST}; rm -rf $o; cp -R {CHANNEL} $o"
)
"""What the job does; it ends with an error where something else has the name of our folder. An item of the arguments
has 256 characters at most."""


def problem(where: str, request: Mapping[str, Any]) -> SmsshError | None:
    """Why no step can repack the model of a request; None where one can.

    Args:
        where: the model's step.
        request: its request.
    """
    several = request.get("Containers")
    container = several[0] if is_list(several) and len(several) == 1 else request.get("PrimaryContainer")
    if is_list(several) and len(several) > 1:
        what = f"it has {len(several)} containers"
    elif not is_map(container) or container.get("ModelDataUrl") is None:
        what = "it has no ModelDataUrl, whose tar.gz could be repacked"
    elif container.get("Image") is None or request.get("ExecutionRoleArn") is None:
        what = "it names no image or no role, with which the job could run"
    elif image_addresses.lacks_shell(container["Image"]):
        what = f"its image {container['Image']} has no /bin/sh, which would run the job"
    else:
        return None
    return refuse(
        where,
        f"repack=True adds a step that repacks this model, and that can't be: {what}",
        "let the SDK repack it (entry_point or source_code, and an artefact of a step before), or leave repack out",
        "not-repacked",
    )


def with_repack_step(step: Step, bundle: str, output: str) -> list[Step]:
    """A step that makes a model, after the step that repacks the model's artefact.

    Args:
        step: the step, as a definition has it; its request has SSH in it.
        bundle: the S3 prefix of the bundle.
        output: the S3 prefix below which the artefact goes.
    """
    request = step["Arguments"]
    several = request.get("Containers")
    container = several[0] if is_list(several) and several else request["PrimaryContainer"]
    name = f"{step['Name']}-RepackWithSSH"
    arguments = {
        "AlgorithmSpecification": {
            "TrainingImage": container["Image"],
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "-e", "-c"],
            "ContainerArguments": [SCRIPT],
        },
        "RoleArn": request["ExecutionRoleArn"],
        "InputDataConfig": [_channel(ARTEFACT, container["ModelDataUrl"]), _channel(CHANNEL, bundle)],
        "OutputDataConfig": {"S3OutputPath": output},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": INSTANCE, "VolumeSizeInGB": VOLUME},
        "StoppingCondition": {"MaxRuntimeInSeconds": LIMIT},
    }
    if at(request, "VpcConfig") is not None:
        arguments["VpcConfig"] = request["VpcConfig"]
    repack: dict[str, Any] = {
        "Name": name,
        "Type": "Training",
        "Description": "Puts what SSH needs into the model's code/ folder; added by smssh-plugin (repack=True)",
        "Arguments": arguments,
    }
    if step.get("DependsOn"):
        repack["DependsOn"] = step["DependsOn"]
    packed = {**container, "ModelDataUrl": {"Get": f"Steps.{name}.ModelArtifacts.S3ModelArtifacts"}}
    changed = (
        {"Containers": [packed]}
        if container is not request.get("PrimaryContainer")
        else {"PrimaryContainer": packed}
    )
    return [repack, {**step, "Arguments": {**request, **changed}}]


def _channel(name: str, address: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": address, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}
