"""Every setting and every option, once: this table is what containers read, `SSHOptions` takes and the docs say.

A setting comes from the job's environment (`SMSSH_HOLD=failure`) or from the bundle's `options.json`
(`{"hold": "failure"}`: the name in lower case, without `SMSSH_`). The job's environment wins. The defaults
cost nobody money: no wait, no hold.

The exceptions (EARLY), which the job's environment alone can say: `entrypoints/boot.py` reads `SMSSH_ENABLE`,
`SMSSH_RUN_DIR` and `SMSSH_BUNDLE` itself, because it decides, before anything may be imported, whether anything is
imported at all, and from where, and `entrypoints/chain.py` reads `SMSSH_TRAINING_MODULE`, which a job needs even where
nothing else of us works.

To add a setting, add a row to `Settings`; with an `Option(...)` it is an option of `SSHOptions`, too. To add an
option that is not a setting of the job, add a row to `Submission`. Then run `make docs`, which writes
`submit/option_fields.py` (the fields and the docstring of `SSHOptions`, for people's editors and type checkers) and
the pages. The string below a row is its documentation: the first paragraph is what the setting does, the others are
about the option. They are not in bundles.

Runs on CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any, Mapping, NamedTuple

from . import setting_values as values
from .errors import ExitStatus, SmsshError

__all__ = [
    "BUNDLE",
    "DECIDES",
    "EARLY",
    "OPTIONS",
    "OPTIONS_JSON",
    "REQUEST",
    "RUNTIME_LIMIT",
    "SETTINGS",
    "WAIT_READY_LIMIT",
    "Option",
    "Setting",
    "Settings",
    "Submission",
    "deprecated",
    "end_seconds",
    "load",
    "parsed",
    "variables",
]

EARLY = ("SMSSH_ENABLE", "SMSSH_BUNDLE", "SMSSH_TRAINING_MODULE", "SMSSH_RUN_DIR")
"""Are read before `options.json`, and nothing that it says of them counts."""

WAIT_READY_LIMIT = 300
"""Seconds that `SMSSH_WAIT=ready` waits at most: the job starts without a login rather than never."""

RUNTIME_LIMIT = 2_419_200
"""Seconds that a job's own limit can be: 28 days, the service's quota for training jobs."""

REQUEST, OPTIONS_JSON, BUNDLE, DECIDES = "request", "options.json", "bundle", "decides"
"""How an option reaches the job: in the request, in `options.json`, as files of the bundle, or not at all, because it
decides what is sent."""


class Option(NamedTuple):
    """A field of `SSHOptions`. What a row leaves out is its setting's, or the kind's."""

    default: Any = None
    kind: values.Kind = values.ANYTHING
    type: str = ""
    """Its type, as it is written."""
    setting: str = ""
    """The setting that says the same on a job; "" if no setting does."""
    travels: str = OPTIONS_JSON
    """REQUEST, OPTIONS_JSON, BUNDLE or DECIDES."""
    limits: str = ""
    """What is accepted, for people."""
    unset: str = ""
    """What the default means, where that is not the setting's default."""
    field: str = ""
    """More arguments of `dataclasses.field`, as they are written."""
    name: str = ""


class Setting(NamedTuple):
    """A field of `Settings`."""

    field: str
    """The attribute of `Settings`, and the key in `options.json`."""
    default: Any
    """The value when nobody sets it, already parsed."""
    kind: values.Kind
    deprecated: tuple[str, ...]
    """sagemaker-ssh-helper's names for the same thing, understood when the variable is unset."""
    extra: bool
    """Whether `SSHOptions(extra=...)` may say it: it has no option of its own."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "SMSSH_" + self.field.upper()

    @property
    def limits(self) -> str:
        """What is accepted, for people."""
        return self.kind.limits


def _setting(
    default: Any,
    kind: values.Kind,
    option: Option | None = None,
    *,
    extra: bool = False,
    deprecated: tuple[str, ...] = (),
) -> Any:
    """A row: see `Setting`."""
    return field(
        default=default, metadata={"kind": kind, "option": option, "extra": extra, "deprecated": deprecated}
    )


def _option(*arguments: Any, **more: Any) -> Any:
    """A row: see `Option`."""
    return Option(*arguments, **more)


@dataclass(frozen=True)
class Settings:
    """The settings of one job, parsed and within their limits."""

    # A pipeline variable, which `enabled` and `role` may be, may have no hash, and answers == with nonsense.
    enable: bool = _setting(
        False,
        values.FLAG,
        Option(
            name="enabled",
            kind=values.SWITCH,
            travels=REQUEST,
            unset="on",
            field="hash=False",
        ),
        deprecated=("START_SSH",),
    )
    """Turns the plugin on in this job.

    False leaves the request as it is, byte for byte. None and True turn SSH on, unless `SMSSH_ENABLE=0` in the
    environment of the submitting process turns every `with_ssh` off. The name of an environment variable of the
    submitting process, in capitals, is a switch from outside: on where it is 1, off where it is 0, empty or not set. A
    pipeline parameter (a ParameterString or ParameterInteger that is 1 or 0) is a switch for each execution, for
    `with_ssh` only: it is what SMSSH_ENABLE of the jobs is, while the rest of the request stays."""

    hold: tuple[str, ...] = _setting((), values.choices(*values.POINTS), Option(()))
    """The points at which the container is held until it is released, retried or out of time."""

    hold_seconds: int = _setting(600, values.duration(1, 86400), Option())
    """How long a hold lasts while nobody is connected."""

    hold_max_seconds: int = _setting(14400, values.duration(1, 432000), Option())
    """How long a hold lasts at most, even while somebody is connected."""

    idle_seconds: int = _setting(0, values.duration(0, 86400), Option())
    """How long a hold goes on after the last person has left; 0 is as long as SMSSH_HOLD_SECONDS."""

    hold_hosts: str = _setting("own", values.choice("own", "all"), Option())
    """Which hosts of a job with several are held: the one that failed, or with it all the others, which then end, wait
    and retry together (over the ssm transport only)."""

    price_per_hour: str = _setting("", values.PRICE, Option())
    """What one of the job's instances costs an hour, so that a hold can say what waiting costs."""

    notify: tuple[str, ...] = _setting((), values.TARGETS, Option((), field="repr=False"))
    """Where events are sent: SNS topics and webhooks, Slack's among them.

    The bundle has them, and everybody who can read it can read them."""

    notify_events: tuple[str, ...] = _setting(
        ("ready", "failed", "held", "expiring", "released"), values.choices(*values.EVENTS), Option(())
    )
    """Which events are sent to SMSSH_NOTIFY."""

    notify_template: str = _setting("$address: $message", values.TEMPLATE, Option())
    """The text that is sent to SMSSH_NOTIFY."""

    wait: str = _setting("", values.WAIT, Option(), deprecated=("SSH_WAIT_TIME_SECONDS",))
    """Delays the entry point: `ready` until a login is possible, 300 s at most; a duration until a person connects, for
    so long at most, and from then on until `smssh-hook release`, or until nobody was connected for so long
    (SMSSH_IDLE_SECONDS, where that is set), SMSSH_HOLD_MAX_SECONDS at most."""

    owner: str = _setting(
        "", values.OWNER, Option(unset="SMSSH_OWNER of the submitting process"), deprecated=("SSH_OWNER_TAG",)
    )
    """The value of the node's SSHOwner tag, for IAM conditions."""

    authorized_keys: tuple[str, ...] = _setting(
        (), values.KEYS, Option((), limits="public keys, paths of files of them, or sources of keys")
    )
    """The public keys that may log in, or where the job reads them with its own role: `s3://bucket/key`,
    `ssm:PARAMETER`, `github:USER`, `https://...`.

    They may log in beside your own smssh key. An option takes lines as in an authorized_keys file, paths of files of
    such lines, and sources. All are read when the request is made, and the bundle holds what was read: who may log in
    is fixed then, what cannot be read is an error then, and the job needs no right and no way to read it. Sources that
    change later need a new request. A job without a bundle (`launcher="baked"`) gets the sources, and reads them with
    its own role."""

    role: str = _setting(
        "",
        values.text("the name or ARN of an IAM role"),
        Option(
            type="Any",
            travels=REQUEST,
            limits="the name or ARN of an IAM role, or a pipeline variable",
            unset="the job's own role",
            field="compare=False",
        ),
        deprecated=("SSH_SSM_ROLE",),
    )
    """The role that the hybrid activation gives to this container's managed node."""

    transport: str = _setting("ssm", values.choice("ssm", "none", "native"), Option("ssm", type="str"))
    """How a client reaches the container's SSH server: through Session Manager (`ssm`), through SageMaker's own remote
    debugging (`native`, training jobs only), or not at all (`none`)."""

    ssh_server: str = _setting("auto", values.choice("auto", "sshd", "asyncssh", "apt"), Option())
    """The SSH server: the image's own sshd, asyncssh, or the first of them that works; `apt` installs openssh-server
    where there is no sshd, which takes half a minute and apt's lock."""

    hosts: int = _setting(0, values.whole(0, 1000), Option(), deprecated=("SSH_INSTANCE_COUNT",))
    """How many hosts of the job, from the first on, people can log in to; 0 is every host."""

    s3_encryption: str = _setting("", values.ENCRYPTION, Option(unset="as the bucket has it"))
    """How a host with the native transport encrypts its announcement in S3, for buckets whose policy demands it of each
    PUT; nothing leaves it to the bucket.

    What is stored when the request is made, such as the bundle, is encrypted so with every transport. The job's role
    must be allowed to decrypt with the key."""

    agent: str = _setting(
        "auto", values.choice("auto", "found", "bundle", "download"), Option("auto", type="str")
    )
    """Where Amazon's agent comes from: the image, the bundle, a download, or the first of them that has it.

    The ssm transport needs it. `auto` is the image's own, else the package that was pinned when the request was made,
    downloaded by the job; `found` is the image's own and nothing else; `download` is the pinned package, whatever the
    image has; `bundle` sends the pinned package along, about 30 MB, for jobs that reach S3 through an endpoint of their
    own only. What is pinned is a version and its SHA-256."""

    agent_version: str = _setting(
        "",
        values.AGENT_VERSION,
        Option(
            limits='a version such as 3.3.987.0, or "latest"',
            unset="the version that this release of smssh-plugin names",
        ),
    )
    """The version of the agent that is downloaded.

    "latest" is the newest at the time of the submission, which makes new bundles, and so runs cached steps again,
    whenever AWS releases one."""

    agent_sha256: tuple[tuple[str, str], ...] = _setting(
        (),
        values.DIGESTS,
        Option(("x86_64",), values.choices("x86_64", "aarch64"), name="machines"),
    )
    """The digests that the agent's package must have: nothing is unpacked without one.

    The option names the machines of the jobs' instances, whose packages are pinned; aarch64 is Graviton's."""

    agent_url: str = _setting(
        "", values.address("the http(s) address of a mirror", "https://", "http://"), extra=True
    )
    """Where the agent is downloaded from instead of the region's own bucket: what stands before
    `/VERSION/debian_amd64/amazon-ssm-agent.deb`."""

    strict: bool = _setting(False, values.FLAG, extra=True)
    """Fails the job when a login cannot be made possible, instead of running it without one."""

    log_to_stdout: bool = _setting(False, values.FLAG, extra=True, deprecated=("SSH_LOG_TO_STDOUT",))
    """Repeats the supervisor's log in the job's log."""

    ssh_port: int = _setting(0, values.PORT, extra=True)
    """The loopback port of the SSH server; 0 takes a free one. For smssh's own commands it has another free one."""

    announce: str = _setting("", values.address("s3://bucket/prefix", "s3://"), extra=True)
    """Where a host with the native transport announces its host key and state; the job's role writes there."""

    disable_hooks: tuple[str, ...] = _setting((), values.names("a comma list of plugin names"), extra=True)
    """Plugins that are not loaded, the built-in ones too."""

    step: str = _setting("", values.text())
    """The name of the pipeline step that this job belongs to."""

    max_runtime: int = _setting(0, values.whole(0, RUNTIME_LIMIT))
    """The job's own limit in seconds (StoppingCondition.MaxRuntimeInSeconds), before which every hold ends; 0 where it
    is not known."""

    bundle: str = _setting("", values.text("a path"))
    """The folder of the bundle in the container, where it cannot be told from the file that was started."""

    training_module: str = _setting("", values.text("module:function"))
    """The image's own SAGEMAKER_TRAINING_MODULE, where the job's names our launcher and the image is not one of AWS's
    own."""

    run_dir: str = _setting("", values.text("a path"))
    """The private folder of lock, socket, keys and logs, instead of /run/smssh or one below TMPDIR."""

    @property
    def wait_seconds(self) -> int | None:
        """Seconds to wait for a person before the entry point starts; None when no person is waited for."""
        return None if self.wait in ("", "ready") else int(self.wait)


class Submission:
    """The options that are not settings of a job: rows like those of `Settings`."""

    launcher: str = _option(
        "auto",
        values.choice("auto", "wrap", "sitecustomize", "chain", "bash_env", "baked"),
        travels=REQUEST,
    )
    """What starts SSH in the container. `auto` wraps the entry point that the request names (`wrap`), and where it
    names none puts a `sitecustomize` of ours on PYTHONPATH; `chain` goes through the training toolkits'
    SAGEMAKER_TRAINING_MODULE, and `bash_env` through BASH_ENV, for images that neither of the former suits. `baked` is
    for images that have smssh-plugin installed, which starts by itself: they get variables and no bundle."""

    bundle: str | None = _option(
        None,
        values.text("s3://bucket/prefix/DIGEST/"),
        travels=REQUEST,
        unset="one is built for these options",
    )
    """The address of a bundle that was built before (`smssh bundle build`). It is used as it is, once it was found to
    be complete and made for these options."""

    owner_scheme: str | None = _option(
        None, values.choice(*values.OWNER_SCHEMES), unset="SMSSH_OWNER_SCHEME of the process"
    )
    """Who owns the job's nodes if no `owner` is named, as in `smssh setup --owner`: with `caller` the UserId that STS
    says of who submits, fixed when the request is made. With the others a request without an owner is an error, because
    IAM would refuse its job a node. A bundle that was built before has its own owner."""

    bundle_prefix: str | None = _option(
        None,
        values.text("s3://bucket/prefix"),
        travels=DECIDES,
        unset="`smssh/bundles` in the SageMaker SDK's default bucket",
    )
    """Under which prefix bundles are stored. The job's role must be able to read it. The bucket must belong to your own
    account, or to the one that the address names at its end: `s3://bucket/prefix?owner=123456789012`."""

    offline: bool = _option(False, values.BOOLEAN, travels=BUNDLE)
    """True makes bundles that bring all that a job needs but S3 and Session Manager: the agent for the stated
    `machines`, and asyncssh's wheels for the stated `wheels`."""

    wheels: tuple[str, ...] = _option((), values.PYTHONS, travels=BUNDLE)
    """The Python versions of images without sshd whose asyncssh wheels go into the bundle, about 5 MB each."""

    plugins: tuple[str, ...] = _option(
        (), values.names("a comma list of names of distributions or modules"), travels=BUNDLE
    )
    """Plugins that go into the bundle: pure Python, installed where the request is made. Code and declared package data
    are sent, nothing else of a package's folder. What they require is not taken along unless it is named, too. Images
    that have them need no copy: they are found there."""

    cache: str = _option("warn", values.choice("warn", "keep", "drop"), travels=DECIDES)
    """What becomes of step caching, because a cache hit starts no container: `warn` says so, `keep` says nothing,
    `drop` takes the step's CacheConfig away while SSH is on."""

    endpoints: bool = _option(False, values.BOOLEAN, travels=REQUEST)
    """True gives SSH to every model that is chosen, those of several containers too, and lets endpoints be entered that
    are made from them. Without it, models only carry what transform jobs need, and only those that a chosen transform
    step uses or that were named."""

    repack: bool | None = _option(None, values.OPTIONAL_BOOLEAN, travels=REQUEST)
    """Whether models bring the bundle to transform jobs in the `code/` folder of their artefact. None: those that the
    SDK repacks in the pipeline; others bring it as one of their AdditionalModelDataSources, which AWS does not document
    for batch transform, if a person named the transform step or the model, and go without otherwise. True: in the
    `code/` folder or not at all; for other models of a pipeline, a step is added that repacks them, a training job of
    some minutes. False: artefacts stay as they are."""

    environment: Mapping[str, Any] = _option(
        travels=REQUEST,
        limits="texts or pipeline variables by name",
        field="default_factory=dict, compare=False",
    )
    """Further variables of the jobs, by name. What a request has already stays, and endpoints get them with
    `endpoints`."""

    extra: Mapping[str, Any] = _option(
        limits="values that JSON can hold, by key", field="default_factory=dict, hash=False"
    )
    """Further keys of `options.json`: for settings that have no option of their own, and for hooks of yours."""


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        each.name, each.default, each.metadata["kind"], each.metadata["deprecated"], each.metadata["extra"]
    )
    for each in fields(Settings)
)
"""The settings, in the order of the table."""


def _options() -> dict[str, Option]:
    rows = []
    for each in fields(Settings):
        option = each.metadata["option"]
        if option is not None:
            kind = each.metadata["kind"] if option.kind is values.ANYTHING else option.kind
            name, type_ = option.name or each.name, option.type or kind.option
            rows.append(option._replace(name=name, setting=each.name, kind=kind, type=type_))
    for name, type_ in Submission.__annotations__.items():
        option = getattr(Submission, name)
        rows.append(option._replace(name=name, type=type_))
    return {each.name: each._replace(limits=each.limits or each.kind.limits) for each in rows}


OPTIONS: Mapping[str, Option] = _options()
"""The options by name, in the order of `SSHOptions`."""


def parsed(kind: values.Kind, name: str, value: Any, limits: str = "", reference: str = "bad-setting") -> Any:
    """A value of a kind.

    Args:
        kind: how it is read.
        name: where it comes from, for people.
        value: text, or a value that JSON can hold.
        limits: what is accepted, if that is not what the kind says.
        reference: what the error is called.

    Raises:
        SmsshError: it is outside its limits.
    """
    try:
        return kind.parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise SmsshError(
            f"{name} is not usable: {error}",
            hint=f"use {limits or kind.limits}",
            reference=reference,
            status=ExitStatus.USAGE,
        ) from None


def end_seconds(max_runtime: int) -> int:
    """How long before the job's own limit a hold ends, in seconds: a job that is stopped there has not ended in order.

    It is enough to deregister, to write the failure file and to be late: SageMaker's clock starts first.
    """
    return min(300, max_runtime // 10)


def load(environ: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this job.

    Args:
        environ: the job's environment; `os.environ` when it is left out.
        options: what the bundle's `options.json` holds. Keys that this version doesn't know are left alone:
            the file may have been written by a newer one.

    Raises:
        SmsshError: a value is outside its limits; the message names the variable or the option.
    """
    environ = os.environ if environ is None else environ
    options = {} if options is None else options
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        name, value = _find(setting, environ, options)
        if name is None:
            continue
        found[setting.field] = parsed(setting.kind, name, value)
    return Settings(**found)


def variables(options: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that say the same as an `options.json`, for a job that gets no such file.

    Args:
        options: what `options.json` would hold.

    Raises:
        SmsshError: a key is not a setting of a job; it could only travel in the file.
    """
    known = {setting.field: setting for setting in SETTINGS}
    found = {}
    for name, value in options.items():
        if name not in known:
            raise SmsshError(
                f"{name!r} is not a setting, so no variable of the job can carry it",
                reference="bad-setting",
                status=ExitStatus.USAGE,
            )
        if isinstance(value, bool):
            text = "1" if value else "0"
        elif isinstance(value, dict):
            text = ",".join(f"{key}={each}" for key, each in sorted(value.items()))
        elif isinstance(value, (list, tuple)):
            text = (known[name].kind.separator or ",").join(map(str, value))
        else:
            text = str(value)
        found[known[name].variable] = text
    return found


def deprecated(environ: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, str]:
    """The names of sagemaker-ssh-helper that decide something in this job, and what each is called here.

    Args:
        environ: the job's environment.
        options: what the bundle's `options.json` holds.
    """
    found = {}
    for setting in SETTINGS:
        name = _find(setting, environ, options)[0]
        if name in setting.deprecated:
            found[str(name)] = setting.variable
    return found


def _find(setting: Setting, environ: Mapping[str, str], options: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Where the setting's value comes from, and the value; (None, None) when nobody set it."""
    if setting.variable in environ:
        return setting.variable, environ[setting.variable]
    if options.get(setting.field) is not None:
        return f"options.json: {setting.field}", options[setting.field]
    for alias in setting.deprecated:
        if alias in environ:
            return alias, environ[alias]
    return None, None
