"""Containers of other images: a job in a small Debian root (see dev/roots.sh), which it changes in memory only."""

import json
import os
import re
import sys
from pathlib import Path

from tests import needs
from tests.entrypoints.container import Container, let_others_in
from tests.waiting import LIMIT, until

ENTER = r"""
set -e
root=$1 folder=$2 bundle=$3 prepare=$4 finish=$5 user=$6 python=$7 up=$8
shift 8
layers=$folder/layers
mkdir "$layers"
mount -t tmpfs layers "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$layers/upper,workdir=$layers/work" "$layers/root"
cd "$layers/root"
mount --rbind /proc proc
mount --rbind /dev dev
mkdir -p ".$folder" ".$bundle"
mount --bind "$folder" ".$folder"
mount --bind "$bundle" ".$bundle"
if [ "$(wc -l < /proc/net/dev)" -eq 3 ]; then # a network of its own: nothing but loopback, and that is down
    "$python" -c "$up"
fi
eval "$prepare"
eval "$finish"
exec chroot --userspec="$user" . "$@"
"""
UP = """
import fcntl, socket, struct
# SIOCSIFFLAGS with IFF_UP | IFF_RUNNING (netdevice(7))
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))
"""


class Root(Container):
    """One job in such a root.

    Args:
        folder: of the test; seen under the same name in the root.
        bundle: the bundle; too.
        key: the client's.
        name: of the root.
    """

    def __init__(self, folder: Path, bundle: Path, key: Path, name: str) -> None:
        if os.geteuid() != 0:
            needs.does_not_apply("only root can enter a root")
        root = Path(needs.program(f"root {name}"))
        super().__init__(folder, bundle, key)
        self.root = root
        self.prepare = ""
        """Shell commands that change the root, in its folder, before the job begins."""
        self.finish = ""
        """The last of them: for what makes others impossible."""
        self.user = "0:0"
        self.namespaces: list[str] = []
        """Others than its own mounts, as options of unshare."""
        for path in (folder, bundle):
            let_others_in(path)
        self.environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "SMSSH_RUN_DIR": str(self.run_dir),
            "SAGEMAKER_BASE_DIR": str(self.base),
            "TRAINING_JOB_NAME": "job-1",
        }
        self.code = self.base / "code"
        self.code.mkdir(parents=True)
        (self.code / "train.py").write_text("import os; print('trained', os.environ.get('SM_MODEL_DIR'))\n")

    def start(self, *command, on=True, **environ):
        if not self.run_dir.exists():
            self.run_dir.mkdir(mode=0o700)
            os.chown(self.run_dir, *map(int, self.user.split(":")))
        os.chown(self.folder, *map(int, self.user.split(":")))
        return super().start(
            *("unshare", "--mount", "--propagation", "private", *self.namespaces, "sh", "-c", ENTER, "sh"),
            *(self.root, self.folder, self.bundle, self.prepare, self.finish, self.user),
            *(sys.executable, UP, *command),
            on=on,
            **environ,
        )

    def run(self, **environ):
        """Start a job that goes on until `end`, and answer what a login needs, as `smssh-hook status` has it."""
        self.wrap(
            "sh",
            "-c",
            f"cd {self.code}; while [ ! -e {self.folder}/go ]; do sleep 0.1; done; exit 3",
            **environ,
        )

        def ready():
            assert self.processes[-1].poll() is None, self.output() + self.log()
            assert "no login is possible" not in self.log(), self.log()
            return "ready: " in self.log()

        until(ready, seconds=120, what=lambda: f"a login; {self.output()}{self.log()}")
        found = re.findall(r"SSH server (\w+) on port (\d+)", self.log())[-1]
        folder = self.run_dir / "ssh"
        if found[0] == "asyncssh":
            text = (folder / "asyncssh.json").read_text()
            return {"ssh": {"server": found[0], **json.loads(text)}}
        key = " ".join((folder / "host_ed25519.pub").read_text().split()[:2])
        return {"ssh": {"server": found[0], "port": int(found[1]), "user": "root", "host_key": key}}

    def end(self):
        """Have the job end, and see that it does as it would have without us."""
        (self.folder / "go").touch()
        assert self.processes[-1].wait(LIMIT) == 3
        self.assert_quiet()
