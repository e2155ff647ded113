"""An ordinary user's rights to files, as root too: for tests of what may not be written."""

from __future__ import annotations

import os

from tests import needs


def ordinary() -> list[str]:
    """Words before a command. Its program may read and write what the mode of a file allows, and no more."""
    if os.geteuid() != 0:
        return []
    return [needs.program("setpriv"), "--bounding-set=-dac_override,-dac_read_search", "--"]
