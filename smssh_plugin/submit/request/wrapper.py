"""The words that go in front of an entry point: they check the bundle before anything of it runs. Pure.

The service allows 256 characters a word, so the program comes in pieces:

    /bin/sh -c SUM smssh CHECK START CLEAN_1 CLEAN_2 FOLDER DIGEST ORIGINAL...

So `$1` to `$6` are CHECK to DIGEST: `$1$2` is run once SUM is defined, `$3$4` is the Python of CLEAN, `$5` the bundle's
folder, `$6` the digest, and `shift 6` leaves the original. run.sh, which these words source, sees the same six.

The digest is that of the manifest, which names the digest of run.sh, which compares the archive with the manifest.
A person who may write to the bundle's prefix, and not to the request, can run nothing. Where run.sh is gone, or is not
what the manifest says, the original runs as if nothing had been here: same process, same arguments. What the bundle's
input adds to the job is taken away first, because toolkits tell scripts of it.

For every shell of POSIX. The digests are made by what the image has: sha256sum, busybox, openssl, or Python, without
which nothing of ours could run anyway. Variables are named smssh_*, or are a subshell's: the original inherits none.
"""

from __future__ import annotations

from typing import Any, Sequence

__all__ = ["LIMIT", "WORDS", "wrap"]

LIMIT = 256
"""Characters of a word, for the service."""

_SUM = (
    'smssh_sum()({ sha256sum<"$1"||busybox sha256sum<"$1"||openssl dgst -sha256 -r<"$1"||'
    'for p in python3 python;do $p -IS -c "import hashlib,sys;'
    'print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"<"$1"&&break;done;} 2>/dev/null);eval "$1$2"'
)
"""Prints the digest of a file; then goes on with the next two pieces."""
_CHECK = (
    'smssh_ok()([ -r "$1/run.sh" ]||exit;s=$(smssh_sum "$1/$3");[ "${s%% *}" = "$2" ]||exit;'
    's=$(smssh_sum "$1/run.sh");'
    'while read -r x;do case $x in "\\"run.sh\\": \\"${s%% *}\\""*)exit;;esac;done<"$1/$3";exit 1);'
)
"""Whether a folder has the manifest of that digest, and the run.sh of that manifest."""
_START = (
    'for smssh_at in "$5" "${SMSSH_RUN_DIR:-/run/smssh}/bundle";do '
    'smssh_ok "$smssh_at" "$6" smssh-manifest.json&&. "$smssh_at/run.sh";done;unset smssh_at;'
    '(for p in python3 python;do $p -IS -c "$3$4" "$5"&&break;done 3>&2 2>/dev/null);shift 6;exec "$@"'
)
"""Goes on with run.sh where it is, or where an earlier start of the container has put it; else with the original."""
_CLEAN = (
    'import sys;exec(\'import json,os,shutil|d=sys.argv[1];b=d[:-17];o=b+"/.smssh"|'
    'def w(p,k="ProcessingInputs"):| if os.path.exists(p):|  c=json.load(open(p));c.pop("smssh",0)|'
    '  if k in c:c[k]=[i for i in c[k]if i["InputName"]!="smssh"]|  json.dump(c,open(p,"w"))|'
    'try:| w(b+"/input/config/inputdataconfig.json");w(b+"/config/processingjobconfig.json")|'
    " os.rename(d,o);shutil.rmtree(o)|"
    'except:0|print("smssh: no login is possible in this job: the bundle is damaged or gone",'
    "file=open(3,\"w\"))'.replace('|',chr(10)))"
)
"""Takes the input away. A rename fails where the folder is a mount, which others may share."""

WORDS = ("/bin/sh", "-c", _SUM, "smssh", _CHECK, _START, _CLEAN[:LIMIT], _CLEAN[LIMIT:])
"""What comes before the folder."""


def wrap(entry_point: Sequence[Any], folder: str, digest: str) -> list[Any]:
    """An entry point behind the bundle's run.sh, if that is what it has to be.

    Args:
        entry_point: its words; any may be a pipeline variable.
        folder: where the bundle is in the container.
        digest: the SHA-256 of the bundle's manifest.
    """
    return [*WORDS, folder, digest, *entry_point]
