"""How much memory the container has had, and whether the kernel ended processes for want of it: from its cgroup.

cgroup v2: docs.kernel.org/admin-guide/cgroup-v2.html, memory.events, memory.peak, memory.max; v1:
docs.kernel.org/admin-guide/cgroup-v1/memory.html, memory.oom_control and the two of bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["read"]

ROOT = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Bytes that nobody has: for no limit v1 has a number near 2**63."""
_FILES = {
    "oom_kills": ("memory.events", "memory/memory.oom_control"),
    "peak_bytes": ("memory.peak", "memory/memory.max_usage_in_bytes"),
    "limit_bytes": ("memory.max", "memory/memory.limit_in_bytes"),
}
_OOM_KILL = re.compile(r"^oom_kill ([0-9]{1,15})$", re.MULTILINE)
_NUMBER = re.compile(r"^([0-9]{1,19})$", re.MULTILINE)


def read(root: Path = ROOT) -> dict[str, int]:
    """`oom_kills` since the container began, `peak_bytes` and `limit_bytes`: those that are known.

    Args:
        root: where cgroups are mounted.
    """
    found: dict[str, int] = {}
    for name, files in _FILES.items():
        pattern = _OOM_KILL if name == "oom_kills" else _NUMBER
        for file in files:
            try:
                number = pattern.search((root / file).read_text(encoding="ascii", errors="replace"))
            except OSError:
                continue
            if number is not None and int(number[1]) < UNLIMITED:
                found[name] = int(number[1])
                break
    return found
