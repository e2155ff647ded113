"""amazon-ssm-agent's command line, as far as a container's start-up uses it."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import uuid
from typing import TYPE_CHECKING, NoReturn

from ...errors import SmsshError
from .setup import AGENT_VERSION, Configuration, Registration, folder_of, state_folder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["main"]

_LOG = logging.getLogger("amazon-ssm-agent")
_CODE_MIN = 20
_REGISTER_SECONDS = 8.0
"""How long the real agent tries to register on a network that does not answer."""
_RETRY_SECONDS = 1.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Go's flag package ends with 2 as well; its usage text is of no use here."""
        print(f"amazon-ssm-agent: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str], pace: float = 0.0) -> int:
    """Run the program.

    Args:
        argv: the path that the program was started by, and its arguments.
        pace: seconds from one message of a session's output to the next.

    Returns:
        The exit status.
    """
    arguments = _arguments(argv[1:])
    if arguments.version:
        print(f"SSM Agent version: {AGENT_VERSION}")
        return 0
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folder = folder_of(argv[0])
    try:
        if arguments.register:
            return _register(arguments, folder)
        if arguments.fingerprint:
            return 0
        configuration = Configuration.load(folder)
        from .control_channel import Agent

        return Agent(configuration, state_folder(folder), pace).run()
    except SmsshError as error:
        _LOG.error("%s", error)
        return 1


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="amazon-ssm-agent", add_help=False, allow_abbrev=False)
    for name in ("register", "clear", "y", "disableSimilarityCheck", "fingerprint", "version"):
        parser.add_argument(f"-{name}", f"--{name}", action="store_true")
    for name in ("id", "code", "region", "similarityThreshold"):
        parser.add_argument(f"-{name}", f"--{name}", default="")
    return parser.parse_args(argv)


def _register(arguments: argparse.Namespace, folder: Path) -> int:
    state = state_folder(folder)
    before = Registration.load(state)
    if arguments.clear and not arguments.id:
        Registration.clear(state)
        print("Registration information has been removed from the instance.")
        return 0
    if not arguments.id or not arguments.code or not arguments.region:
        raise SmsshError("Registration failed: -id, -code and -region are needed")
    if len(arguments.code) < _CODE_MIN:
        raise SmsshError(f"Registration failed: an activation code has {_CODE_MIN} characters")
    if before is not None and not arguments.y:
        question = "Would you like to override existing with new registration information?"
        print(f"Instance already registered. {question}\n[Yes/No]: ", end="", flush=True)
        if not sys.stdin.readline().strip().lower().startswith("y"):
            raise SmsshError("Registration canceled by user")
    registration = _registered(arguments, folder)
    registration.save(state)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    print(
        f"{stamp} INFO Successfully registered the instance with AWS SSM using Managed instance-id: "
        f"{registration.node}",
        flush=True,
    )
    return 0


def _registered(arguments: argparse.Namespace, folder: Path) -> Registration:
    """Make a key pair and register it.

    Raises:
        SmsshError: refused, or no answer for 8 s.
    """
    from .identity import key_pair
    from .service_client import CallFailed, json_call

    configuration = Configuration.load(folder)
    private, public = key_pair()
    fingerprint = str(uuid.uuid4())
    body = {
        "ActivationId": arguments.id,
        "ActivationCode": arguments.code,
        "PublicKey": public,
        "PublicKeyType": "Rsa",
        "Fingerprint": fingerprint,
    }
    deadline = time.monotonic() + _REGISTER_SECONDS
    while True:
        try:
            answer = json_call(configuration.ssm, "AmazonSSM.RegisterManagedInstance", body, None)
        except CallFailed as error:  # noqa: PERF203 - it sleeps
            if error.code or time.monotonic() > deadline:
                raise SmsshError(
                    f"Registration failed due to error registering the instance with AWS SSM. {error}"
                ) from error
            time.sleep(_RETRY_SECONDS)
        else:
            node = str(answer["InstanceId"])
            return Registration(node, arguments.region, fingerprint, private, time.time())
