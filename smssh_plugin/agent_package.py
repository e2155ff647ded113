"""Amazon's agent as a package: where it lies, and how it is fetched; for where jobs are submitted and where they run.

Packages are at https://s3.REGION.amazonaws.com/amazon-ssm-REGION/VERSION/debian_ARCH/amazon-ssm-agent.deb, ARCH
amd64 or arm64, and `latest/VERSION` says which version is the newest (Systems Manager's user guide, "Manually
installing SSM Agent on Debian Server instances" and "Checking the SSM Agent version number"; that a version can
stand in the place of `latest` is how the build images of AWS CodeBuild have it). China's hosts end in
amazonaws.com.cn (the agent's own updateutil_test.go), GovCloud's look like everybody's (GovCloud's user guide): the
S3 endpoint that boto3 knows for a region is right everywhere.

Python 3.8 and the standard library; botocore's certificates where it is installed.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    import ssl

__all__ = ["MACHINES", "PACKAGE", "botocore_certificates", "bucket_url", "download", "package_url"]

PACKAGE = "amazon-ssm-agent.deb"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What uname calls a machine, to what Debian calls it."""

DOWNLOAD_SECONDS = 180.0
"""All attempts together; the package has 25 to 35 MB."""
DOWNLOAD_ATTEMPTS = 4
ANSWER_SECONDS = 10.0
"""For a connection, and for the next part of an answer."""
SIZE_LIMIT = 256 << 20
CHUNK = 1 << 16


class _HopelessError(Exception):
    """What another attempt would not change."""


def bucket_url(endpoint: str, region: str) -> str:
    """The region's bucket of packages, below an S3 endpoint such as `https://s3.eu-west-1.amazonaws.com`."""
    return f"{endpoint.rstrip('/')}/amazon-ssm-{region}"


def package_url(base: str, version: str, machine: str) -> str:
    """Where a package lies.

    Args:
        base: see `bucket_url`; or a mirror.
        version: for example `3.3.987.0`.
        machine: as `uname -m` says it.

    Raises:
        SmsshError: there is no agent for such a machine.
    """
    if machine not in MACHINES:
        raise SmsshError(f"there is no amazon-ssm-agent for {machine} machines", reference="no-agent")
    return f"{base}/{version}/debian_{MACHINES[machine]}/{PACKAGE}"


def download(
    url: str, target: Path, *, seconds: float = DOWNLOAD_SECONDS, ending: threading.Event | None = None
) -> None:
    """Download a file, again where that may help, within a time.

    HTTPS_PROXY and NO_PROXY apply, as for everything that urllib fetches.

    Args:
        url: https or http; the caller checks what has come by its digest.
        target: the file; a part of it may be there after an error.
        seconds: for everything, but not for the resolution of the name, which has its own limits.
        ending: set when nobody wants it any more.

    Raises:
        SmsshError: it did not come (`reference` is `not-downloaded`), or cannot be written (`not-written`).
    """
    # Not at the top: urllib takes 50 ms to import, and most who import this module download nothing.
    import ssl
    import urllib.error
    from http.client import HTTPException

    ending = threading.Event() if ending is None else ending
    deadline = time.monotonic() + seconds
    problem = ""
    for attempt in range(DOWNLOAD_ATTEMPTS):
        try:
            _attempt(url, target, deadline, ending)
            return
        except urllib.error.HTTPError as error:
            problem = f"HTTP status {error.code}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except _HopelessError as error:
            problem = str(error)
            break
        except urllib.error.URLError as error:
            problem = str(error.reason)
        except (HTTPException, socket.timeout, ConnectionError, ssl.SSLError) as error:
            problem = str(error) or type(error).__name__
        except OSError as error:
            raise SmsshError(
                f"{target} cannot be written: {error.strerror or error}", reference="not-written"
            ) from None
        pause = random.uniform(0.5, 2.0 ** (attempt + 1))  # noqa: S311 - no secret
        if time.monotonic() + pause >= deadline or ending.wait(pause):
            break
    raise SmsshError(
        f"{url} cannot be downloaded: {problem}", reference="not-downloaded", status=ExitStatus.UNREACHABLE
    )


def _attempt(url: str, target: Path, deadline: float, ending: threading.Event) -> None:
    import urllib.request

    class Onward(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            # Who asks by https wants an answer that nobody on the way has written.
            if req.full_url.startswith("https:") and not newurl.startswith("https:"):
                raise _HopelessError(f"it is redirected to {newurl}, which is not https")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    request = urllib.request.Request(url, headers={"User-Agent": "smssh-plugin"})  # noqa: S310 - of our own settings
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls()), Onward())
    with opener.open(request, timeout=ANSWER_SECONDS) as answer, target.open("wb") as out:
        expected = int(answer.headers.get("Content-Length") or 0)
        size = 0
        while True:
            data = answer.read1(CHUNK)  # what is there: a whole chunk may drip in for hours
            if not data:
                break
            size += len(data)
            out.write(data)
            if ending.is_set():
                raise _HopelessError("the job is over")
            if time.monotonic() > deadline:
                raise _HopelessError(f"only {size} bytes came in time")
            if size > SIZE_LIMIT:
                raise _HopelessError(f"it is larger than {SIZE_LIMIT} bytes")
        # Python's own check knows only whole reads.
        if size < expected:
            raise ConnectionError(f"only {size} of {expected} bytes came")


def _tls() -> ssl.SSLContext:
    """The system's certificates, and botocore's where a lean image has none."""
    import ssl

    trusted = ssl.create_default_context()
    for path in (os.environ.get("AWS_CA_BUNDLE"), botocore_certificates()):
        if path and os.path.isfile(path):
            trusted.load_verify_locations(path)
    return trusted


def botocore_certificates() -> str | None:
    """The file of certificates that comes with botocore; None where there is no botocore."""
    try:
        import botocore
    except ImportError:
        return None
    path = Path(botocore.__file__).parent / "cacert.pem"
    return str(path) if path.is_file() else None
