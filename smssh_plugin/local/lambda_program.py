"""What runs the handler of a Lambda function, in a process of its own: the standard library only.

Arguments: the handler (`module.function`) and the file that the result is written to. On standard input: JSON with
`event` and `context`. The working directory is the function's code. The result is `{"returned": ...}`, or `{"error":
{"errorType": ..., "errorMessage": ...}}` as Lambda has it; standard output and error are the function's log.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any


class Context:
    """The second argument of a handler."""

    def __init__(self, members: dict[str, Any]) -> None:
        self.function_version = "$LATEST"
        self.function_name = members["function_name"]
        self.invoked_function_arn = members["invoked_function_arn"]
        self.memory_limit_in_mb = members["memory_limit_in_mb"]
        self.aws_request_id = members["aws_request_id"]
        self.log_group_name = f"/aws/lambda/{self.function_name}"
        self.log_stream_name = self.aws_request_id
        self.identity = None
        self.client_context = None
        self._end = time.time() + members["timeout"]

    def get_remaining_time_in_millis(self) -> int:
        """What is left of the function's timeout."""
        return max(0, int((self._end - time.time()) * 1000))


def call(handler: str, given: dict[str, Any]) -> Any:
    """Import the handler and call it."""
    module, _, function = handler.rpartition(".")
    found = getattr(importlib.import_module(module.replace("/", ".")), function)
    return found(given["event"], Context(given["context"]))


def main() -> int:
    """Call the handler; write what it returned."""
    handler, path = sys.argv[1:]
    given = json.load(sys.stdin)
    sys.path.insert(0, os.getcwd())
    try:
        result = {"returned": call(handler, given)}
        text = json.dumps(result)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is its failure, too
        traceback.print_exc()
        text = json.dumps({"error": {"errorType": type(error).__name__, "errorMessage": str(error)}})
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    # The handler's own folder comes first, and not this program's.
    sys.path.pop(0)
    sys.exit(main())
