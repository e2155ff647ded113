#!/bin/sh
# The carrier that wraps a ContainerEntrypoint: /bin/sh run.sh ORIGINAL...
#
# Finds a Python for the entry point's parent (init.py) and becomes it. Whatever is wrong before that, the original
# runs as if nothing had been here: same command, same process id.

smssh_here=${0%/*}
if [ "${SMSSH_ENABLE-}" = 1 ] && [ -r "$smssh_here/smssh.zip" ]; then
    for smssh_python in python3 python /opt/venv/bin/python3 /opt/conda/bin/python3 /usr/bin/python3 \
        /usr/local/bin/python3 /miniconda3/bin/python3; do
        smssh_python=$(command -v "$smssh_python" 2>/dev/null) || continue
        # Run it: a Python that doesn't start must not take the job with it.
        "$smssh_python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 7))' </dev/null >/dev/null 2>&1 || continue
        # -I -S: nothing of the job's PYTHON* variables, site-packages or folder may get in here, and it starts faster.
        exec "$smssh_python" -I -S -c '
import os, sys
try:
    sys.path.insert(0, os.path.join(sys.argv[1], "smssh.zip"))
    from smssh_plugin.entrypoints import init
except BaseException:
    import signal
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(init.run(sys.argv[2:], "run.sh", sys.argv[1]))
' "$smssh_here" "$@"
    done
fi
unset smssh_here smssh_python
exec "$@"
