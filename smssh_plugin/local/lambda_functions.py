"""Lambda functions that pipelines invoke: the code that moto was given, run in a process on this machine.

A function is known when it was created against the emulator, as the SDK's LambdaStep does, with the code of a Python
handler in a zip archive. It runs with the emulator's own Python, which has boto3, whatever runtime it names; layers
are not there. Its log is a file in the emulator's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import lambda_program
from .jobs.outputs import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .keyring import Keyring

__all__ = ["Function", "FunctionFailed", "Functions", "UnknownFunction"]

_INIT_SECONDS = 10.0
"""What the start of a function may take beside its timeout: Lambda's own limit."""
_STEP_SECONDS = 600.0
"""The longest that a Lambda step runs."""
_PAYLOAD = 6 << 20
"""Bytes of a synchronous answer, by Lambda's quotas."""
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Function:
    """A function that was created.

    Args:
        arn: its ARN.
        name: its name.
        package: Zip or Image.
        runtime: for example python3.12.
        handler: module.function.
        code: the zip archive.
        environment: its own variables.
        timeout: seconds.
        memory: megabytes, as it is told; nothing limits it here.
    """

    arn: str
    name: str
    package: str
    runtime: str
    handler: str
    code: bytes
    environment: dict[str, str]
    timeout: float
    memory: int


class UnknownFunction(Exception):  # noqa: N818 - a reason
    """The function cannot run here; the text says why."""


class FunctionFailed(Exception):  # noqa: N818 - named as Lambda names it
    """The function raised, or took too long; the text says what."""


class Functions:
    """Invokes functions.

    Args:
        find: the function of an ARN or a name; None if it does not exist; called in a worker thread.
        folder: where their logs are kept.
        environment: variables that each gets: region, endpoint.
        keyring: issues credentials for each invocation, which end with it.
    """

    def __init__(
        self,
        find: Callable[[str], Function | None],
        folder: Path,
        environment: Mapping[str, str],
        keyring: Keyring,
    ) -> None:
        self._find = find
        self._folder = folder
        self._environment = environment
        self._keyring = keyring

    async def invoke(self, name_or_arn: str, event: Any) -> Any:
        """Run a function to its end; answers what it returned.

        Raises:
            UnknownFunction: it cannot run here.
            FunctionFailed: it raised, or took longer than its timeout.
        """
        function = await asyncio.to_thread(self._find, name_or_arn)
        if function is None:
            raise UnknownFunction(
                f"the function {name_or_arn} is not known here; create it against smssh local"
            )
        if function.package != "Zip" or not function.runtime.startswith("python") or not function.code:
            what = function.runtime if function.package == "Zip" else f"package type {function.package}"
            raise UnknownFunction(f"the function {function.name} ({what}) is not Python in a zip archive")
        self._folder.mkdir(parents=True, exist_ok=True)
        key = self._keyring.issue(f"function {function.name}")
        try:
            with tempfile.TemporaryDirectory(
                dir=self._folder, prefix="run-", ignore_cleanup_errors=True
            ) as scratch:
                return await self._run(function, event, Path(scratch), key.variables())
        finally:
            self._keyring.revoke(key)

    async def _run(self, function: Function, event: Any, scratch: Path, credentials: dict[str, str]) -> Any:
        code, result = scratch / "task", scratch / "result.json"
        try:
            await asyncio.to_thread(_unpack, function.code, code)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise FunctionFailed(
                f"Runtime.InvalidEntrypoint: the archive of {function.name}: {error}"
            ) from None
        context = {
            "function_name": function.name,
            "invoked_function_arn": function.arn,
            "memory_limit_in_mb": str(function.memory),
            "aws_request_id": str(uuid.uuid4()),
            "timeout": function.timeout,
        }
        environment = {
            "PATH": _PATH,
            "HOME": str(code),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._environment,
            **credentials,
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
            "LAMBDA_TASK_ROOT": str(code),
            **function.environment,
        }
        with open(self._folder / f"{function.name.replace('/', '-')}.log", "ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-s", lambda_program.__file__, function.handler, str(result)),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=code,
                env=environment,
                start_new_session=True,
            )
        try:
            given = json.dumps({"event": event, "context": context}).encode()
            limit = min(function.timeout + _INIT_SECONDS, _STEP_SECONDS)
            await asyncio.wait_for(process.communicate(given), limit)
        except asyncio.TimeoutError:
            raise FunctionFailed(
                f"Sandbox.Timedout: Task timed out after {function.timeout:.2f} seconds"
            ) from None
        finally:
            # What it started ends with it, as the sandbox of a function does.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return await asyncio.to_thread(_read, result, process.returncode)


def _unpack(archive: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        file.extractall(folder)


def _read(path: Path, status: int | None) -> Any:
    """What a function returned.

    Raises:
        FunctionFailed: it returned nothing.
    """
    # By a handler that means it, anything may stand there.
    text = read_text(path, _PAYLOAD + 1)
    if len(text) > _PAYLOAD:
        raise FunctionFailed("Function.ResponseSizeTooLarge: the answer is larger than 6 MB")
    try:
        found = json.loads(text)
        if "error" not in found:
            return found["returned"]
        reason = f"{found['error']['errorType']}: {found['error']['errorMessage']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = f"Runtime.ExitError: Runtime exited with error: exit status {status}"
    raise FunctionFailed(reason)
