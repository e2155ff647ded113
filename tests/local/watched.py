"""Runs a command where every packet that leaves the machine is seen: `watched.py COMMAND...`, in a network namespace.

The namespace's default route leads into a tun device (tun(4)) that this program reads. It prints the command's
output, then `PACKETS` and one line for each destination; the exit status is the command's.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001


def main(command: list[str]) -> int:
    """Run it."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"away", _TUN_WITHOUT_HEADER))
    for words in (
        "link set lo up",
        "addr add 192.0.2.2/24 dev away",
        "link set away up",
        "route add default dev away",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    process = subprocess.Popen(command)
    seen: dict[str, None] = {}
    while True:
        ended = process.poll() is not None
        while select.select([device], [], [], 0 if ended else 0.1)[0]:
            packet = os.read(device, 65536)
            if packet[0] >> 4 == 4:
                seen[f"{socket.inet_ntoa(packet[16:20])} protocol {packet[9]}"] = None
            elif packet[6] not in (0, 58):  # the kernel's own, when a device comes up
                seen[socket.inet_ntop(socket.AF_INET6, packet[24:40])] = None
        if ended:
            break
    print("PACKETS", *seen, sep="\n", flush=True)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
