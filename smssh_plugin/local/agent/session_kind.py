"""What a session does once its data channel is open: the part that differs from one session type to another.

The real agent calls these plugins too: Port, Standard_Stream, InteractiveCommands, NonInteractiveCommands
(agent/session/plugins). A plugin here never blocks: its worker polls the descriptors that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .setup import Configuration

__all__ = ["Output", "Plugin", "Result", "Task"]


@dataclass(frozen=True)
class Result:
    """How a session ended: `Success` or `Failed`, and the text for its user."""

    status: str
    output: str = ""

    @classmethod
    def success(cls) -> Result:
        """It did what it was for, or was ended on purpose."""
        return cls("Success")

    @classmethod
    def failed(cls, output: str) -> Result:
        """It did not."""
        return cls("Failed", output)


@dataclass(frozen=True)
class Task:
    """A session to run, as the service asked for it.

    Args:
        session_id: its id.
        target: the node that was asked.
        session_type: Port, Standard_Stream, InteractiveCommands or NonInteractiveCommands.
        properties: the document's properties, parameters filled in.
        inputs: the document's inputs: kmsKeyId, runAsEnabled, runAsDefaultUser, shellProfile.
        configuration: the agent's.
    """

    session_id: str
    target: str
    session_type: str
    properties: Any
    inputs: dict[str, Any]
    configuration: Configuration

    @property
    def key_id(self) -> str:
        """The KMS key that the session is encrypted with; "" for none. A Port session never is."""
        return "" if self.session_type == "Port" else str(self.inputs.get("kmsKeyId") or "")


class Output(Protocol):
    """The way to the client."""

    @property
    def open(self) -> bool:
        """Whether more should be read and sent."""

    def send(self, payload_type: int, payload: bytes) -> None:
        """Send one message."""


class Plugin:
    """One session's work.

    Args:
        task: the session.
        output: the way to the client.
    """

    handshake = True
    """Whether there is a handshake even where nothing is encrypted."""

    def __init__(self, task: Task, output: Output) -> None:
        self.task = task
        self.output = output
        self.result: Result | None = None
        """Set at the end."""

    @staticmethod
    def properties(task: Task) -> Any:
        """What the client is told of the document's properties in the handshake."""
        del task

    def start(self, client_version: str) -> None:
        """Begin, after the handshake or without one.

        Args:
            client_version: of the client; "" without a handshake.

        Raises:
            SmsshError: it cannot; the message is for the user.
        """
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether input can be taken; the client is left to send again what cannot."""
        raise NotImplementedError

    @property
    def full(self) -> bool:
        """Whether so much input waits that no more should be read."""
        return False

    def take(self, payload_type: int, payload: bytes) -> None:
        """Act on a message of the client."""
        raise NotImplementedError

    def watched(self) -> dict[int, int]:
        """Descriptors to poll, with the events of select.poll."""
        return {}

    def act(self, ready: dict[int, int]) -> None:
        """Act on descriptors that are ready, and on what else has changed."""
        raise NotImplementedError

    def timeout(self) -> float | None:
        """Seconds until `act` has something to do whatever the descriptors say; None for never."""
        return None

    def close(self) -> None:
        """Give back everything; also after a `start` that failed."""
        raise NotImplementedError
