"""docs/causes.md: how `smssh debug` finds the cause of a failure, and every cause that it knows, from the table."""

from __future__ import annotations

from smssh_plugin.debug.causes.table import CAUSES

__all__ = ["page"]

HEAD = """\
# Why a step failed

<!-- Written by dev/docs.py from smssh_plugin/debug/causes/table.py. -->

`smssh debug` says of each step that failed which error ended it and what caused it, whether the step was held or not,
in its output, in `report.json` and in `report.html`:

```text
03:12:44  Train: failed and is held: ModuleNotFoundError: No module named 'polars'
03:12:44  Train: cause: Python finds no module polars (recorded in the container; at fit.py:7)
03:12:44  Train: add it to requirements.txt beside the entry point; a module of your own has to be in source_dir. ...
```

## Which error

The first or the last traceback of a log is often not the one that ended the job. smssh looks at:

1. the exceptions that smssh recorded in the container as they happened, with the processes above each; what ended a
   thread counts only where nothing ended its process
2. the logs of all hosts: the last 1,000 lines of each of up to 16
3. how the job ended: exit status and signal, `FailureReason`, `ExitMessage` and the step's own reason.

Each process that names itself in the log (`[rank3]:`, `[1,mpirank:2,algo-1]<stderr>:`, TorchServe, Ray, ...) is read
alone. In each the last error counts; earlier ones were survived. Among processes, one that only lost another one
(connections closed by a peer, time-outs, SIGTERM) stands behind the rest. An error that only says that another program
has failed (`ChildFailedError`, `Py4JJavaError`, a `CalledProcessError` of a launcher) counts if nothing else is left.
If a signal killed the process, exceptions before that are not the cause. Of an exception group, it is the deepest
exception.

The error of a chain is its last exception. Its cause is looked for in the exception that it was raised `from` first; if
it was raised while another one was handled, in itself first.

If SageMaker could not do something itself (start the job, read inputs, write outputs), that is the error, whatever the
log holds.

## How sure

| words | meaning |
| --- | --- |
| recorded in the container | smssh was there when it happened |
| read from the log | found by a parser in the lines that the job wrote |
| said by SageMaker | the text of the job or the step |
| `cause: ...` | the error itself names the cause (`certain` in report.json) |
| `cause: probably: ...` | such an error most often means that, or another one may have ended the job: see `doubts` |
| `not known` | no sign of the table fits; the error and the last lines are shown |

A process that signal 9 ended was killed, "most often because the memory was full". That is certain only if
the kernel's counter in the container (`oom_kill` of its cgroup) says so. There is a report only of attempts that are
held, so only those have that evidence. A `MemoryError` is certain without it: it may also be from a limit of
the process (`ulimit -v`) on a host with free memory.

## In report.json

`cause` of an incident or a step has these fields:

| field | meaning |
| --- | --- |
| `id` | the cause, as in the table below, or `unknown` |
| `sentence`, `advice` | what happened, and what to do |
| `certain` | whether the sources say so themselves |
| `hold` | whether a hold helps: `y`, `part`, `n`, or empty if unknown |
| `sure` | where the error is from: `recorded`, `parsed`, `service`, or empty if there is no error |
| `error`, `place`, `where` | the chosen error, the last line of your code that it went through, and the host and rank |
| `evidence`, `doubts` | what else speaks for it, and against it |
| `others`, `count` | up to five errors that were not chosen, and how many there are |
| `possible` | other causes whose signs were found |

## Causes

"Hold" says whether a held container helps: **yes**, fix it there and retry; **part**, look there, the fix is in the
request; **no**, no container runs, or the fix is elsewhere.

| id | cause | what to do | hold |
| --- | --- | --- | --- |
"""

_HOLDS = {"y": "yes", "part": "part", "n": "no"}


def page() -> str:
    """The page."""
    rows = [
        f"| `{each.id}` | {each.sentence} | {each.advice} | {_HOLDS[each.hold]} |".replace(" | | ", " |  | ")
        for each in CAUSES
    ]
    return HEAD + "\n".join(rows) + "\n"
