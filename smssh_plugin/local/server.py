"""The local emulator's process: wires jobs, sessions, SageMaker, moto and the gateway, and takes them down again.

`python -m smssh_plugin.local.server --folder DIR ...` is how `smssh local up` starts it in the background.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import json
import logging
import os
import secrets
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from .agent.installed import PACE
from .certificate import Certificate
from .environment import REGION, Access, network
from .gateway import Gateway, listen
from .iam.account import read_account
from .iam.enforcement import Enforcement
from .jobs.job_run import remove_orphans
from .jobs.manager import JobRunner
from .keyring import Keyring
from .lambda_functions import Functions
from .moto_backend import MotoBackend
from .outgoing import Outgoing
from .sagemaker.sagemaker_service import SageMaker
from .sandbox.container import raise_descriptor_limit
from .sessions.session_service import LATENCY_SECONDS, SessionService
from .state import State, StateFolder, already_running, port_in_use, process_birth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .keyring import Key
    from .state import Users

__all__ = ["Config", "run", "serve"]

log = logging.getLogger(__name__)

_UNUSED_PERIOD = 0.2
"""Seconds between two looks whether a temporary one is still used."""

_READY = "ready"
_ERROR = "error"


@dataclass(frozen=True)
class Config:
    """How to run.

    Args:
        folder: the state folder.
        port: to listen on, on 127.0.0.1; 0 takes a free one.
        image_env: the folder of every image that is not in `images`; see images.py.
        temporary: end when no command uses it any more, unless somebody makes it stay (`State.temporary`).
        latency: seconds that each message of Session Manager's channels is under way, each way.
        pace: seconds from one message of a fake agent's output to the next.
        signed_clients: whether clients of data channels have to sign.
        images: the folders of other images, by full URI, by `repository:tag` or by `repository`.
        known_images_only: fail jobs whose image is not in `images`, as SageMaker fails them.
        iam: the folder of the policies that are enforced; None to enforce none.
    """

    folder: Path
    port: int
    image_env: Path
    temporary: bool = False
    latency: float = LATENCY_SECONDS
    pace: float = PACE
    signed_clients: bool = True
    images: Mapping[str, Path] = field(default_factory=dict)
    known_images_only: bool = False
    iam: Path | None = None


async def serve(config: Config, ready: Callable[[State], None]) -> None:
    """Run until SIGTERM, SIGINT or, if temporary, its last user's end; then stop every job, leave nothing behind.

    Args:
        config: how.
        ready: called once, when requests are answered.

    Raises:
        SmsshError: the port is in use, or another local emulator runs in the folder.
    """
    folder = StateFolder(config.folder)
    folder.make()
    # The users' lock is let go of last: who joins after that can start another.
    with folder.users() as users, folder.only() as alone:
        if not alone:
            raise already_running(folder)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            state = await _start(config, folder, stack)
            folder.write(state)
            stack.callback(folder.remove)
            log.info("ready at %s", state.endpoint)
            ready(state)
            if config.temporary:
                watch = asyncio.create_task(_stop_unused(folder, users, stop))
                stack.callback(watch.cancel)
            await stop.wait()
            log.info("stopping")
        log.info("stopped")


async def _stop_unused(folder: StateFolder, users: Users, stop: asyncio.Event) -> None:
    """Stop it when no command uses it. The last one does so itself; this is for one that was killed."""
    while not users.alone():
        await asyncio.sleep(_UNUSED_PERIOD)
    state = folder.read()
    if state is not None and not state.temporary:
        users.leave()
        return
    stop.set()


# Long: one part after another, each with its end.
async def _start(config: Config, folder: StateFolder, stack: contextlib.AsyncExitStack) -> State:
    """Start everything, each with its end on `stack`. Jobs end before what they report to."""
    account = None if config.iam is None else read_account(config.iam)
    try:
        listener = listen(config.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_in_use(config.port) from None
        raise
    stack.callback(listener.close)
    # Agents speak TLS on their channels and nothing else: Amazon's cannot be told otherwise.
    secure = listen(0)
    stack.callback(secure.close)
    certificate = Certificate.make(folder.path)
    port = listener.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    keyring = Keyring()
    access = Access(endpoint, keyring.caller, certificate.authority, secrets.token_urlsafe(30))
    moto = MotoBackend(folder.path)
    await asyncio.to_thread(moto.start)
    stack.push_async_callback(asyncio.to_thread, moto.stop)
    s3, logs = await asyncio.to_thread(lambda: (moto.client("s3"), moto.client("logs")))

    async def read_object(bucket: str, key: str) -> bytes:
        def read() -> bytes:
            body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return body

        return await asyncio.to_thread(read)

    @functools.cache
    def s3_of(role: str) -> Any:
        made = moto.client("s3")
        return made if iam is None else iam.guard_client(made, role)

    channels = f"https://127.0.0.1:{secure.getsockname()[1]}"
    environment = container_environment(access, folder.path, channels)
    # Only here is it certain that they are not another's: by the folder's lock this is the only local emulator in it.
    await asyncio.to_thread(remove_orphans, folder.path / "jobs", folder.path / "functions")
    runner = await asyncio.to_thread(
        lambda: JobRunner(
            folder.path,
            s3,
            logs,
            config.image_env,
            environment,
            images=config.images,
            known_images_only=config.known_images_only,
            keyring=keyring,
            pace=config.pace,
            s3_of=s3_of if account is not None else None,
        )
    )
    stack.push_async_callback(runner.close)
    sessions = SessionService(endpoint, latency=config.latency, signed_clients=config.signed_clients)
    functions = Functions(moto.function, folder.path / "functions", environment, keyring)
    sagemaker = SageMaker(runner, read_object, sessions.faults, functions, runner.images)
    # Before the first job is there, whose client of S3 asks it.
    iam = None if account is None else Enforcement(account, keyring, sessions, sagemaker.store)
    runner.on_status(sagemaker.jobs.progress)
    runner.on_line(sagemaker.jobs.line)
    gateway = Gateway(sagemaker, sessions, moto, keyring, Outgoing(access.proxy, certificate), iam)
    await gateway.start(listener, (secure, certificate.context()))
    stack.push_async_callback(gateway.stop)
    stack.push_async_callback(sessions.close)
    stack.push_async_callback(sagemaker.close)
    clients = {} if iam is None else iam.keys
    return _state(config, access, keyring, port, channels, clients)


def _state(
    config: Config, access: Access, keyring: Keyring, port: int, channels: str, clients: Mapping[str, Key]
) -> State:
    """What commands find in the state folder."""
    birth = process_birth(os.getpid())
    assert birth is not None  # we are here
    return State(
        pid=os.getpid(),
        birth=birth,
        port=port,
        endpoint=access.endpoint,
        started=time.time(),
        image_env=str(config.image_env),
        channels=channels,
        authority=str(access.authority),
        temporary=config.temporary,
        access_key=keyring.caller.access_key,
        secret_key=keyring.caller.secret_key,
        proxy=access.proxy,
        latency=config.latency,
        pace=config.pace,
        signed_clients=config.signed_clients,
        images={name: str(path) for name, path in config.images.items()},
        known_images_only=config.known_images_only,
        iam="" if config.iam is None else str(config.iam),
        clients={name: (key.access_key, key.secret_key, key.token or "") for name, key in clients.items()},
    )


def container_environment(access: Access, folder: Path, channels: str) -> dict[str, str]:
    """What every container gets but its credentials, which are its job's own, and what an agent in it needs.

    Args:
        access: what leads to the emulator.
        folder: the state folder.
        channels: the endpoint of agents' channels, https.
    """
    return {
        "AWS_ENDPOINT_URL": access.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_SSMMESSAGES": channels,
        **network(access, folder),
    }


def run(config: Config, ready: Callable[[State], None]) -> None:
    """`serve`, in a process of its own: what the environment says of AWS is taken out of it first.

    A profile or an endpoint there is the caller's; botocore, here and in moto, would take it for ours.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    raise_descriptor_limit()
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    asyncio.run(serve(config, ready))


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--named-image", nargs=2, action="append", default=[], metavar=("NAME", "FOLDER"))
    parser.add_argument("--known-images-only", action="store_true")
    parser.add_argument(
        "--report", type=int, required=True, help="descriptor that one line of JSON is written to"
    )
    parser.add_argument("--temporary", action="store_true")
    parser.add_argument("--latency", type=float, default=LATENCY_SECONDS)
    parser.add_argument("--pace", type=float, default=PACE)
    parser.add_argument("--unsigned-clients", action="store_true")
    parser.add_argument("--iam", type=Path)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Jobs must not inherit it: they would keep the parent's pipe open.
    os.set_inheritable(given.report, False)

    def report(kind: str, members: dict[str, Any]) -> None:
        # The parent may have given up waiting, or know already that this is ready.
        with contextlib.suppress(OSError), os.fdopen(given.report, "w") as pipe:
            pipe.write(json.dumps({kind: members}) + "\n")

    def fail(error: SmsshError) -> None:
        told = {"message": error.message, "hint": error.hint, "reference": error.reference}
        report(_ERROR, {**told, "status": error.status})

    try:
        run(
            Config(
                given.folder,
                given.port,
                given.image,
                given.temporary,
                given.latency,
                given.pace,
                not given.unsigned_clients,
                {name: Path(folder) for name, folder in given.named_image},
                given.known_images_only,
                given.iam,
            ),
            lambda state: report(_READY, asdict(state)),
        )
    except SmsshError as error:
        fail(error)
        return int(error.status)
    except OSError as error:
        # A full disk, most of all: the log that has the details may be the file that could not be written.
        log.exception("cannot go on")
        fail(
            SmsshError(
                f"smssh local cannot use its folder {given.folder}: {error}",
                hint="make room, or set SMSSH_HOME to a folder on another disk",
                reference="home-not-writable",
            )
        )
        return int(ExitStatus.FAILED)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
