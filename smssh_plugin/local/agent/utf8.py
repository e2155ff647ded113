"""Output in messages that end between characters: clients print each message by itself."""

from __future__ import annotations

from .agent_stream import CHUNK

__all__ = ["Utf8Cutter"]


class Utf8Cutter:
    """Cuts a stream of bytes. What is not UTF-8 goes through as it is.

    Args:
        limit: bytes of a message, at most; 4 or more.
    """

    def __init__(self, limit: int = CHUNK) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that can be sent; the beginning of a character at the end waits for its rest."""
        data = self._rest + data
        cut: list[bytes] = []
        start = 0
        while start < len(data):
            piece = data[start : start + self._limit]
            whole = len(piece) - _unfinished(piece)
            if not whole:
                break
            cut.append(piece[:whole])
            start += whole
        self._rest = data[start:]
        return cut

    def finish(self) -> bytes:
        """What waited, at the end of the stream."""
        rest, self._rest = self._rest, b""
        return rest

    def messages(self, data: bytes) -> list[bytes]:
        """The messages that can be sent after a read; one of nothing is the end of the stream."""
        if data:
            return self.feed(data)
        rest = self.finish()
        return [rest] if rest else []


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a character without ending it; 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte & 0xF8 == 0xF0 else 3 if byte & 0xF0 == 0xE0 else 2 if byte & 0xE0 == 0xC0 else 1
        return back if length > back else 0
    return 0
