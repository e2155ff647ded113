"""The container's side as `smssh-hook` shows it: a state file, a folder of code, a real entry point."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

HOOK = """\
#!{python}
import hashlib, json, os, subprocess, sys, time
from pathlib import Path

folder = Path({folder!r})
state = json.loads((folder / "state.json").read_text())
with (folder / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")

def save(**changes):
    state.update(changes)
    fresh = folder / f"state.{{os.getpid()}}"
    fresh.write_text(json.dumps(state))
    fresh.replace(folder / "state.json")

def files(place):
    return {{str(each.relative_to(place)): each.read_bytes() for each in sorted(place.rglob("*")) if each.is_file()}}

def changed():
    base, now = files(folder / "base"), files(Path(state["code_dir"]))
    blobs = {{}}
    def side(data):
        if data is None:
            return None
        blobs[hashlib.sha256(data).hexdigest()] = data
        return {{"kind": "file", "digest": hashlib.sha256(data).hexdigest(), "size": len(data)}}
    changes = [{{"path": name, "before": side(base.get(name)), "after": side(now.get(name))}}
               for name in sorted({{*base, *now}}) if base.get(name) != now.get(name)]
    return changes, blobs

def tell_changes():
    changes, blobs = changed()
    for begun in state.get("begun", {{}}).values():
        blobs.update({{key: bytes.fromhex(data) for key, data in begun[1].items()}})
    begun = {{number: each[0] for number, each in state.get("begun", {{}}).items()}}
    told = {{"version": 1, "code_dir": state["code_dir"], "base": True, "taken": 1.0, "changes": changes,
            "attempts": begun, "blobs": [[key, len(data)] for key, data in blobs.items()]}}
    sys.stdout.flush()
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\\n" + b"".join(blobs.values()))

def begin():
    changes, blobs = changed()
    begun = [changes, {{key: data.hex() for key, data in blobs.items()}}]
    save(state="running", attempt=state["attempt"] + 1,
         begun={{**state.get("begun", {{}}), str(state["attempt"] + 1): begun}})

verb = sys.argv[1]
print("Welcome to this container.")  # as a login shell may
if verb == "status":
    print(json.dumps(state))
elif verb == "report":
    if state.get("no_report"):
        sys.exit("error: there is no report")
    print(json.dumps(json.loads((folder / "report.json").read_text())))
elif verb == "note":
    if state.get("no_notes"):
        sys.exit("smssh-hook: invalid choice: 'note'")
    save(note=sys.argv[2])
elif verb == "changes":
    tell_changes()
elif verb == "begin":
    begin()
elif verb == "retry":
    begin()
    began = time.time()
    done = subprocess.run([sys.executable, "train.py"], cwd=state["code_dir"], stdout=2)
    save(state="held" if done.returncode else "ended", exit_code=done.returncode)
    print(json.dumps({{"attempt": state["attempt"], "exit_code": done.returncode,
                       "seconds": time.time() - began, "state": state["state"]}}), flush=True)
    sys.exit(done.returncode)
elif verb == "release":
    if state.get("no_release"):
        sys.exit("error: nothing is released here")
    save(state="ended")
"""

REPORT: dict[str, Any] = {
    "version": 1,
    "exit_code": 1,
    "command": ["python", "train.py"],
    "error": "ValueError: could not convert string to float: ' '",
    "traceback": 'Traceback (most recent call last):\n  File "train.py"\nValueError: could not convert <b>\n',
    "environment_names": ["PATH", "SM_HOSTS"],
    "processes": [{"pid": 1, "ppid": 0, "command": "python train.py", "rss_bytes": 1000000}],
    "disk": [{"path": "/", "total_bytes": 10**10, "used_bytes": 10**9, "free_bytes": 9 * 10**9}],
    "gpu": None,
    "log_tail": ["read 600 customers"],
    "python": "3.11.7",
}


class Container:
    """One held container.

    Args:
        folder: where it keeps its things; a new one.
        programs: the folder on the PATH of the login, where smssh-hook is put.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.code = folder / "code dir"
        self.code.mkdir(parents=True)
        (self.code / "train.py").write_text("import sys\nsys.exit(1)\n")
        (self.code / "train.py").chmod(0o640)
        shutil.copytree(self.code, folder / "base")
        (folder / "report.json").write_text(json.dumps(REPORT))
        self.set(
            version=1,
            state="held",
            point="failure",
            attempt=1,
            hold={"since": 0.0, "deadline": 4e9, "max_deadline": 5e9, "connected": 0},
            code_dir=str(self.code),
        )
        hook = self.hook = programs / "smssh-hook"
        hook.write_text(HOOK.format(python=sys.executable, folder=str(folder)))
        hook.chmod(0o755)

    def set(self, **state: Any) -> None:
        old = self.state if (self.folder / "state.json").exists() else {}
        fresh = self.folder / f"state.{os.getpid()}"
        fresh.write_text(json.dumps({**old, **state}))
        fresh.replace(self.folder / "state.json")

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def fixes(self, **files: str) -> Path:
        """A folder of fixes; names with `_` for the dot."""
        folder = self.folder / "fixes"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        return folder


GOOD_PATCH = """\
--- a/src/train.py
+++ b/src/train.py
@@ -1,2 +1,2 @@
 import sys
-sys.exit(1)
+print("trained")
"""
