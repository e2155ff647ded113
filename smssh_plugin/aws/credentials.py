"""Credentials: what can be read in a moment is read here, the rest of the chain is botocore's.

The order is botocore's (`create_credential_resolver`). What is read here: the variables, the static keys of a
profile, and the role credentials of an SSO or role profile that the AWS CLI, botocore or a login before this one
left in `~/.aws/cli/cache`, which is where botocore's chain keeps its own when it is asked from here.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from .json_client import FRESH_SECONDS, StaticKeys, keys_of, time_of

if TYPE_CHECKING:
    from .profile import Profile
    from .signing import Keys

__all__ = ["CredentialChain"]

CACHE = "~/.aws/cli/cache"
_ROLE_ARGUMENTS = (
    ("RoleArn", "role_arn"),
    ("RoleSessionName", "role_session_name"),
    ("ExternalId", "external_id"),
    ("SerialNumber", "mfa_serial"),
)


@dataclass
class CredentialChain:
    """The credentials of a profile, fresh whenever they are asked for.

    Attributes:
        profile: the profile.
        region: the region, for calls of botocore's chain to STS.
    """

    profile: Profile
    region: str | None
    _static: StaticKeys | None = None
    _resolved: Any = None

    @property
    def static(self) -> bool:
        """Whether the keys are kept as they were read, from variables or a file."""
        return self._static is not None

    def keys(self) -> Keys | None:
        """The current credentials; None if there are no credentials.

        Raises:
            SmsshError: there should be some, but they cannot be obtained (an SSO login that has ended, ...).
        """
        if self._static is None and self._resolved is None:
            self._static = None if self.profile.explicit else keys_of(os.environ)
            self._static = self._static or _from_files(self.profile)
        if self._static is not None:
            return self._static
        cached = _from_cache(self.profile)
        if cached is not None:  # looked up each time, so that it is never a dead one
            return cached
        return self._botocore()

    def _botocore(self) -> Keys | None:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            InvalidConfigError,
            PartialCredentialsError,
            RefreshWithMFAUnsupportedError,
        )
        from botocore.utils import JSONFileCache

        try:
            if self._resolved is None:
                self._resolved = _resolver(
                    self, JSONFileCache(str(Path(os.path.expanduser(CACHE))))
                ).load_credentials()
            return None if self._resolved is None else self._resolved.get_frozen_credentials()
        except RefreshWithMFAUnsupportedError as error:
            # It does not ask twice: what the terminal shows by now is not to be disturbed by a prompt.
            raise self._mfa("have ended, and new ones take an MFA code") from error
        except (PartialCredentialsError, InvalidConfigError) as error:
            raise self._unread(
                error, "add what is missing to the profile, for instance with `aws configure`"
            ) from error
        except (OSError, ValueError) as error:  # a program or a file that it names, and what that says
            hint = "check credential_process or web_identity_token_file, whichever the profile has"
            raise self._unread(error, hint) from error
        except (BotoCoreError, ClientError) as error:
            raise self._unread(error, "log in again, for instance with `aws sso login`") from error

    def _unread(self, error: Exception, hint: str) -> SmsshError:
        return SmsshError(
            f"the AWS credentials of profile {self.profile.name!r} cannot be read: {' '.join(str(error).split())}",
            hint=hint,
            reference="no-credentials",
            status=ExitStatus.REFUSED,
            check="identity.credentials",
        )

    def _ask(self, prompt: str) -> str:
        """An MFA code, from the terminal: stdin is not ours to read, and may be ssh's stream.

        Raises:
            SmsshError: there is nobody to ask, or no answer.
        """
        code = _typed(prompt)
        if not code:
            raise self._mfa("take an MFA code, and nobody entered one at a terminal")
        return code

    def _mfa(self, why: str) -> SmsshError:
        named = f" --profile {self.profile.name}" if self.profile.explicit else ""
        return SmsshError(
            f"the AWS credentials of profile {self.profile.name!r} {why}",
            hint=f"log in first: `smssh list{named}` in a terminal asks for the code, and keeps the credentials until "
            "they end",
            reference="mfa-needed",
            status=ExitStatus.REFUSED,
        )


def _typed(prompt: str) -> str:
    """What is typed at the terminal of this process, unseen; "" if there is no terminal or nothing was typed."""
    import getpass

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        try:
            # In the background, reading would stop this process, with no word to anybody.
            asked = os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
        return getpass.getpass(prompt).strip() if asked else ""
    except (OSError, EOFError):
        return ""


def _resolver(chain: CredentialChain, cache: Any) -> Any:
    from botocore.credentials import create_credential_resolver
    from botocore.session import Session

    profile = chain.profile
    botocore_session = Session(profile=profile.name if profile.explicit else None)
    if chain.region:
        botocore_session.set_config_variable("region", chain.region)
    resolver = create_credential_resolver(botocore_session, cache=cache, region_name=chain.region)
    # As the AWS CLI does with the cache of this provider: there is no argument for it.
    roles: Any = resolver.get_provider("assume-role")
    roles._prompter = chain._ask  # noqa: SLF001 - see above
    return resolver


def _from_files(profile: Profile) -> StaticKeys | None:
    """The static keys of the profile, where nothing comes before them in the chain."""
    if any(
        profile.get(key) for key in ("role_arn", "web_identity_token_file", "sso_account_id", "sso_session")
    ):
        return None
    if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and not profile.explicit:
        return None
    found = _keys_in(profile.stored)
    if found is None and not any(profile.get(key) for key in ("login_session", "credential_process")):
        found = _keys_in(profile.settings)
    return found


def _keys_in(section: Any) -> StaticKeys | None:
    access, secret = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    token = section.get("aws_session_token") or section.get("aws_security_token")
    return StaticKeys(access, secret, token or None) if access and secret else None


def _from_cache(profile: Profile) -> StaticKeys | None:
    """The role's credentials that are in the cache and good for a while."""
    key = _cache_key(profile)
    if key is None:
        return None
    try:
        found = json.loads((Path(os.path.expanduser(CACHE)) / f"{key}.json").read_text(encoding="utf-8"))[
            "Credentials"
        ]
        left = time_of(str(found["Expiration"])) - time.time()
        keys = StaticKeys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return keys if left > FRESH_SECONDS else None


def _cache_key(profile: Profile) -> str | None:
    """The name under which botocore keeps a role's credentials (`CachedCredentialFetcher._create_cache_key`)."""
    import hashlib

    if profile.get("role_arn"):
        if profile.get("web_identity_token_file"):
            return None
        arguments: dict[str, Any] = {
            name: value for name, key in _ROLE_ARGUMENTS if (value := profile.get(key)) is not None
        }
        duration = profile.get("duration_seconds") or ""
        if duration.isascii() and duration.isdigit() and len(duration) < 10:
            arguments["DurationSeconds"] = int(duration)
        text = json.dumps(arguments, sort_keys=True)
    elif profile.get("sso_account_id") and profile.get("sso_role_name"):
        arguments = {"roleName": profile.get("sso_role_name"), "accountId": profile.get("sso_account_id")}
        if profile.get("sso_session"):
            arguments["sessionName"] = profile.get("sso_session")
        else:
            arguments["startUrl"] = profile.get("sso_start_url")
        text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    else:
        return None
    return hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - a file's name, which is not ours to choose
