"""The shared configuration files: what they say for one profile, by botocore's rules.

https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Profile"]

Section = dict


class Profile:
    """One profile of `~/.aws/config` and `~/.aws/credentials`.

    Args:
        name: the profile; by default AWS_DEFAULT_PROFILE, AWS_PROFILE or `default`.

    Raises:
        SmsshError: a file cannot be read, or the profile that was named is in neither.
    """

    def __init__(self, name: str | None = None) -> None:
        self.explicit = name is not None
        """Whether it was named to us: variables with credentials do not count then."""
        named = name or os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE")
        self.name = named or "default"
        sections = _read(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
        stored = _read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
        heads = ("default",) if self.name == "default" else ()
        found = [sections[head] for head in (*heads, f"profile {self.name}") if head in sections]
        if named and not found and self.name not in stored:
            raise SmsshError(
                f"the AWS configuration has no profile {self.name!r}",
                hint="name one that `aws configure list-profiles` shows, in AWS_PROFILE or with --profile",
                reference="no-profile",
                status=ExitStatus.USAGE,
            )
        self.settings: Mapping[str, str] = found[-1] if found else {}
        """Its values in the configuration file."""
        self.stored: Mapping[str, str] = stored.get(self.name, {})
        """Its values in the credentials file."""
        self._sections = sections

    def get(self, key: str) -> str | None:
        """A value, of the credentials file first, which lays its values over the other's."""
        return self.stored.get(key) or self.settings.get(key) or None

    def section(self, kind: str, name: str) -> Mapping[str, str]:
        """Another section that a profile refers to: `sso-session NAME`, `services NAME`."""
        return self._sections.get(f"{kind} {name}", {})

    def endpoint(self, service: str) -> str | None:
        """The endpoint that is configured for a service, `ssm` or `sagemaker`; None if no endpoint is.

        https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
        """
        if self._ignores_endpoints():
            return None
        return (
            os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}")
            or os.environ.get("AWS_ENDPOINT_URL")
            or self._section_endpoint(service)
            or self.get("endpoint_url")
        )

    def own_endpoint(self, service: str) -> str | None:
        """The same without what is configured for all services."""
        if self._ignores_endpoints():
            return None
        return os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or self._section_endpoint(service)

    def _section_endpoint(self, service: str) -> str | None:
        return _nested(self.section("services", self.get("services") or "").get(service)).get("endpoint_url")

    def _ignores_endpoints(self) -> bool:
        return _true(os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")) or _true(
            self.get("ignore_configured_endpoint_urls")
        )


def _read(name: str) -> dict[str, Mapping[str, str]]:
    path = Path(os.path.expanduser(os.path.expandvars(name)))
    if not path.is_file():
        return {}
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read([path], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise SmsshError(
            f"cannot read the AWS configuration {path}: {' '.join(str(error).split())}",
            hint="check that file, or name another one in AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE",
            reference="aws-unusable",
            status=ExitStatus.USAGE,
        ) from error
    # Names may be quoted, as in a shell: [profile "my name"].
    return {
        " ".join(part.strip("\"'") for part in section.split(None, 1)): dict(parser.items(section))
        for section in parser.sections()
    }


def _nested(text: str | None) -> dict[str, str]:
    """An indented block below a key: one `name = value` a line."""
    pairs = (line.partition("=") for line in (text or "").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _true(text: str | None) -> bool:
    return (text or "").strip().lower() == "true"
