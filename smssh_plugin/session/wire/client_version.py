"""The version of session-manager-plugin that our client announces, and what that version implies. Raise it here.

AWS refuses versions below a minimum, and its agent changes what it does by the version that it hears. What the plugin's
releases brought that a peer can see, and where it is here (Session Manager plugin release history, AWS's user guide):

| version | since then | here |
| --- | --- | --- |
| 1.1.70 | port forwarding is multiplexed (smux) | `mux` |
| 1.2.295 | standard error comes apart from the output | `ClientChannel.on_error` |
| 1.2.331 | smux without keep-alive, which would defeat the idle time-out | `mux` |
| 1.2.677 | the version is in the first message of the data channel too | `ClientChannel` |
| 1.2.688, not 1.2.694 to 1.2.707, 1.2.764 | the websocket upgrade is signed | `Lifetime.channel` |
| 1.2.835 | a forward goes on after its websocket was opened anew; `~.` ends a shell | `Channel`, `shell.Escape` |
| 1.2.889, 1.2.896 | the stream's address is looked at before it is dialled | it comes from StartSession over TLS |
"""

from __future__ import annotations

from datetime import date

__all__ = ["CLIENT_VERSION", "MINIMUM", "RELEASED"]

CLIENT_VERSION = "1.2.896.0"
RELEASED = date(2026, 10, 9)
"""When Amazon released that version."""
MINIMUM = "1.2.764.0"
"""What AWS supports at least ("If you're running an earlier version, your Session Manager operations might not
succeed", the release history, read in November 2026)."""
