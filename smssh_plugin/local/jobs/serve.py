"""`serve` for the local emulator's image: the handlers of sagemaker-inference behind /ping and /invocations.

It runs with the image's Python (3.7 or later), as a copy in a folder of its own: the standard library and
`sagemaker_inference`, nothing of smssh_plugin. It does what the toolkit's own `start_model_server` does
around Java's Multi Model Server, without Java: the folder of the code on the path, `pip install -r
requirements.txt`, the user's model_fn, input_fn, predict_fn and output_fn (or transform_fn) loaded through
the toolkit's DefaultHandlerService.

Variables it knows: SAGEMAKER_PROGRAM (default inference.py), SAGEMAKER_SUBMIT_DIRECTORY (a local folder;
default <base>/model/code), SAGEMAKER_BASE_DIR (default /opt/ml), SAGEMAKER_BIND_TO_PORT (default 8080),
SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT, SAGEMAKER_MAX_PAYLOAD_IN_MB (default 6).
"""

# Python 3.7; and no `from __future__`, because the copy that runs has a line for sh before the docstring.
# ruff: noqa: UP006, UP035, UP045

import os
import signal
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Optional

BASE = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
MODEL = os.path.join(BASE, "model")


def code_folder() -> str:
    """Where the user's code is."""
    named = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    if named.startswith("file://"):  # noqa: FURB188 - removeprefix() is of Python 3.9
        named = named[len("file://") :]
    return named if os.path.isdir(named) else os.path.join(MODEL, "code")


class Context:
    """As much of mms.context.Context as sagemaker_inference.transformer uses."""

    def __init__(self, headers: Dict[str, str]) -> None:
        self.system_properties = {"model_dir": MODEL}
        self.request_processor = [self]
        self.status = 200
        self.phrase: Optional[str] = None
        self.content_type: Optional[str] = None
        self._headers = headers

    def get_request_properties(self) -> Dict[str, str]:
        """The headers of the request."""
        return self._headers

    def get_request_header(self, _index: int, name: str) -> Optional[str]:
        """One header of the request."""
        return self._headers.get(name)

    def set_response_status(self, code: int = 200, phrase: Optional[str] = None) -> None:
        """The status of the answer."""
        self.status = code
        self.phrase = phrase

    def set_response_content_type(self, _index: int, value: str) -> None:
        """The type of the answer."""
        self.content_type = value


class Handler(BaseHTTPRequestHandler):
    """/ping and /invocations."""

    protocol_version = "HTTP/1.1"
    service: Any = None
    most_bytes = 6 << 20

    def do_GET(self) -> None:
        """Healthy is who listens: the model is loaded before."""
        self._answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self) -> None:
        """One invocation."""
        size = int(self.headers.get("Content-Length") or 0)
        if self.path != "/invocations" or size > self.most_bytes:
            # The body is not read: the connection cannot go on.
            self.close_connection = True
            self._answer(404 if self.path != "/invocations" else 413, b"")
            return
        body = self.rfile.read(size)
        context = Context(dict(self.headers.items()))
        results = self.service.handle([{"body": body}], context)
        result = results[0]
        data = result if isinstance(result, (bytes, bytearray)) else str(result).encode("utf-8")
        if context.status >= 400:
            sys.stderr.write(data.decode("utf-8", "replace") + "\n")
        self._answer(context.status, bytes(data), context.content_type)

    def _answer(self, status: int, body: bytes, content_type: Optional[str] = None) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's name
        """A ping a second is not worth a line."""
        if self.path != "/ping":
            super().log_message(format, *arguments)


class Server(ThreadingHTTPServer):
    """A server whose threads do not keep the process alive."""

    daemon_threads = True


def load(code: str) -> Any:
    """Install the model's requirements and load the model.

    Raises:
        subprocess.CalledProcessError: pip failed.
        Exception: what the user's module or its model_fn raises.
    """
    requirements = os.path.join(code, "requirements.txt")
    if os.path.exists(requirements):
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-r", requirements])
    sys.path.insert(0, code)
    # The user's code may start interpreters of its own.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
    from sagemaker_inference.default_handler_service import DefaultHandlerService

    service = DefaultHandlerService()
    service.initialize(Context({}))
    return service


def main() -> int:
    """Load, then serve until SIGTERM."""
    try:
        Handler.service = load(code_folder())
    except Exception:  # noqa: BLE001 - the user's code may raise anything
        traceback.print_exc()
        return 1
    Handler.most_bytes = int(os.environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6")) << 20 or sys.maxsize
    server = Server(("127.0.0.1", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Handler)

    def end(_number: int, _frame: Any) -> None:
        # shutdown() waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
