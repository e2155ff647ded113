"""SageMaker's own remote debugging: an agent that the service, not the job, runs in a training container.

It needs no activation and no registration: its identity is the target `sagemaker-training-job:JOB_HOST` itself,
its rights are those of the job's role. On AWS that is Amazon's agent in container mode with a custom identity,
as far as can be told from outside (the permissions that the developer guide asks for are exactly what that
configuration uses); here it is the fake agent.

Facts: Amazon SageMaker AI developer guide, "Access a training container through AWS Systems Manager for remote
debugging".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any

from .agent.installed import PACE, Interpreter, install
from .agent.setup import certificate_of

if TYPE_CHECKING:
    from pathlib import Path

    from .sandbox.container import Program, Sandbox

__all__ = ["NativeAgent", "target_of"]

_STOP_SECONDS = 3.0


def target_of(job: str, host: str) -> str:
    """What a client names to reach a host of a training job."""
    return f"sagemaker-training-job:{job}_{host}"


class NativeAgent:
    """The agent of one host. Made by `start`."""

    def __init__(self, program: Program) -> None:
        self._program = program

    @classmethod
    async def start(
        cls,
        sandbox: Sandbox,
        target: str,
        folder: Path,
        log: Path,
        environment: dict[str, str],
        pace: float = PACE,
        interpreter: Interpreter | None = None,
    ) -> NativeAgent:
        """Start it in a container that is running.

        Args:
            sandbox: the container.
            target: its identity.
            folder: a folder for it alone, which the container sees under the same name.
            log: the file that it writes to.
            environment: the container's: endpoint, region, credentials.
            pace: seconds from one message of a session's output to the next.
            interpreter: what runs it there; by default the one that this runs in.

        Raises:
            SandboxStartError: no process.
            OSError: its files cannot be written.
        """
        program = install(folder, pace, interpreter)
        (folder / "configuration").mkdir(exist_ok=True)
        text = json.dumps(_configuration(target, environment), indent=1)
        (folder / "configuration" / "amazon-ssm-agent.json").write_text(text, encoding="utf-8")
        authority = environment.get("AWS_CA_BUNDLE")
        if authority is not None:
            # For its channels, which are TLS. A variable would be in the environment of its shells, too.
            certificate_of(folder).parent.mkdir(exist_ok=True)
            shutil.copyfile(authority, certificate_of(folder))
        return cls(await sandbox.run([str(program)], environment, log))

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._program.running

    async def stop(self) -> None:
        """End it; its sessions go on until they end, as those of Amazon's agent do."""
        self._program.terminate()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._program.wait(), _STOP_SECONDS)
        self._program.kill()
        await self._program.wait()


def _configuration(target: str, environment: dict[str, str]) -> dict[str, Any]:
    region = environment["AWS_REGION"]
    endpoint = environment["AWS_ENDPOINT_URL"]
    channels = environment.get("AWS_ENDPOINT_URL_SSMMESSAGES") or endpoint
    identity = {"InstanceID": target, "Region": region, "CredentialsProvider": "DEFAULT"}
    return {
        "Ssm": {"Endpoint": endpoint},
        "Mgs": {"Region": region, "Endpoint": channels, "SessionWorkerBufferLimit": 100},
        "Kms": {"Endpoint": endpoint},
        "Agent": {"Region": region, "ContainerMode": True},
        "Identity": {"ConsumptionOrder": ["CustomIdentity"], "CustomIdentities": [identity]},
        "Profile": {"ShareCreds": False},
    }
