# Written by dev/option_fields.py from smssh_plugin/settings.py: change the table there, and run `make docs`.
"""The fields of `SSHOptions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

__all__ = ["OptionFields"]


@dataclass(frozen=True)
class OptionFields:
    """How a job is entered. Every default costs nobody money: no wait, no hold.

    The variable in parentheses says the same on a job, and wins over the option; most options travel in the bundle's
    `options.json`, because a job's environment is scarce. A list is a tuple of texts, or one text with commas
    (`authorized_keys`: with line ends). A duration is a number of seconds, or a text such as "30m".

    Attributes:
        enabled: Turns the plugin on in this job. False leaves the request as it is, byte for byte. None and True turn
            SSH on, unless `SMSSH_ENABLE=0` in the environment of the submitting process turns every `with_ssh` off. The
            name of an environment variable of the submitting process, in capitals, is a switch from outside: on where
            it is 1, off where it is 0, empty or not set. A pipeline parameter (a ParameterString or ParameterInteger
            that is 1 or 0) is a switch for each execution, for `with_ssh` only: it is what SMSSH_ENABLE of the jobs is,
            while the rest of the request stays. Takes True, False, None, the name of an environment variable, or a
            pipeline parameter (SMSSH_ENABLE; on).
        hold: The points at which the container is held until it is released, retried or out of time. Takes a comma list
            of start, failure, end (SMSSH_HOLD; none).
        hold_seconds: How long a hold lasts while nobody is connected. Takes a duration, 1s to 24h (SMSSH_HOLD_SECONDS;
            `600`).
        hold_max_seconds: How long a hold lasts at most, even while somebody is connected. Takes a duration, 1s to 120h
            (SMSSH_HOLD_MAX_SECONDS; `14400`).
        idle_seconds: How long a hold goes on after the last person has left; 0 is as long as SMSSH_HOLD_SECONDS. Takes
            a duration, 0 to 24h (SMSSH_IDLE_SECONDS; `0`).
        hold_hosts: Which hosts of a job with several are held: the one that failed, or with it all the others, which
            then end, wait and retry together (over the ssm transport only). Takes own or all (SMSSH_HOLD_HOSTS; `own`).
        price_per_hour: What one of the job's instances costs an hour, so that a hold can say what waiting costs. Takes
            a number, and a currency if you like: 1.21 or 1.21 USD (SMSSH_PRICE_PER_HOUR; none).
        notify: Where events are sent: SNS topics and webhooks, Slack's among them. The bundle has them, and everybody
            who can read it can read them. Takes a comma list of SNS topic ARNs and https addresses (SMSSH_NOTIFY;
            none).
        notify_events: Which events are sent to SMSSH_NOTIFY. Takes a comma list of ready, running, failed, held,
            reminder, expiring, extended, retried, released, ended (SMSSH_NOTIFY_EVENTS; `ready, failed, held, expiring,
            released`).
        notify_template: The text that is sent to SMSSH_NOTIFY. Takes text with $names: event, message, job, kind, host,
            step, address, connect, attempt, exit_code, seconds_left, cost (SMSSH_NOTIFY_TEMPLATE; `$address:
            $message`).
        wait: Delays the entry point: `ready` until a login is possible, 300 s at most; a duration until a person
            connects, for so long at most, and from then on until `smssh-hook release`, or until nobody was connected
            for so long (SMSSH_IDLE_SECONDS, where that is set), SMSSH_HOLD_MAX_SECONDS at most. Takes empty, `ready`,
            or a duration up to 4h (SMSSH_WAIT; none).
        owner: The value of the node's SSHOwner tag, for IAM conditions. Takes up to 256 letters, numbers, spaces and
            `_.:/=+-@` (SMSSH_OWNER; SMSSH_OWNER of the submitting process).
        authorized_keys: The public keys that may log in, or where the job reads them with its own role:
            `s3://bucket/key`, `ssm:PARAMETER`, `github:USER`, `https://...`. They may log in beside your own smssh key.
            An option takes lines as in an authorized_keys file, paths of files of such lines, and sources. All are read
            when the request is made, and the bundle holds what was read: who may log in is fixed then, what cannot be
            read is an error then, and the job needs no right and no way to read it. Sources that change later need a
            new request. A job without a bundle (`launcher="baked"`) gets the sources, and reads them with its own role.
            Takes public keys, paths of files of them, or sources of keys (SMSSH_AUTHORIZED_KEYS; none).
        role: The role that the hybrid activation gives to this container's managed node. Takes the name or ARN of an
            IAM role, or a pipeline variable (SMSSH_ROLE; the job's own role).
        transport: How a client reaches the container's SSH server: through Session Manager (`ssm`), through SageMaker's
            own remote debugging (`native`, training jobs only), or not at all (`none`). Takes ssm, none or native
            (SMSSH_TRANSPORT; `ssm`).
        ssh_server: The SSH server: the image's own sshd, asyncssh, or the first of them that works; `apt` installs
            openssh-server where there is no sshd, which takes half a minute and apt's lock. Takes auto, sshd, asyncssh
            or apt (SMSSH_SSH_SERVER; `auto`).
        hosts: How many hosts of the job, from the first on, people can log in to; 0 is every host. Takes 0 to 1000
            (SMSSH_HOSTS; `0`).
        s3_encryption: How a host with the native transport encrypts its announcement in S3, for buckets whose policy
            demands it of each PUT; nothing leaves it to the bucket. What is stored when the request is made, such as
            the bundle, is encrypted so with every transport. The job's role must be allowed to decrypt with the key.
            Takes AES256, aws:kms, or a key of KMS: id, ARN or alias (SMSSH_S3_ENCRYPTION; as the bucket has it).
        agent: Where Amazon's agent comes from: the image, the bundle, a download, or the first of them that has it. The
            ssm transport needs it. `auto` is the image's own, else the package that was pinned when the request was
            made, downloaded by the job; `found` is the image's own and nothing else; `download` is the pinned package,
            whatever the image has; `bundle` sends the pinned package along, about 30 MB, for jobs that reach S3 through
            an endpoint of their own only. What is pinned is a version and its SHA-256. Takes auto, found, bundle or
            download (SMSSH_AGENT; `auto`).
        agent_version: The version of the agent that is downloaded. "latest" is the newest at the time of the
            submission, which makes new bundles, and so runs cached steps again, whenever AWS releases one. Takes a
            version such as 3.3.987.0, or "latest" (SMSSH_AGENT_VERSION; the version that this release of smssh-plugin
            names).
        machines: The digests that the agent's package must have: nothing is unpacked without one. The option names the
            machines of the jobs' instances, whose packages are pinned; aarch64 is Graviton's. Takes a comma list of
            x86_64, aarch64 (SMSSH_AGENT_SHA256; `x86_64`).
        launcher: What starts SSH in the container. `auto` wraps the entry point that the request names (`wrap`), and
            where it names none puts a `sitecustomize` of ours on PYTHONPATH; `chain` goes through the training
            toolkits' SAGEMAKER_TRAINING_MODULE, and `bash_env` through BASH_ENV, for images that neither of the former
            suits. `baked` is for images that have smssh-plugin installed, which starts by itself: they get variables
            and no bundle. Takes auto, wrap, sitecustomize, chain, bash_env or baked (`auto`).
        bundle: The address of a bundle that was built before (`smssh bundle build`). It is used as it is, once it was
            found to be complete and made for these options. Takes s3://bucket/prefix/DIGEST/ (one is built for these
            options).
        owner_scheme: Who owns the job's nodes if no `owner` is named, as in `smssh setup --owner`: with `caller` the
            UserId that STS says of who submits, fixed when the request is made. With the others a request without an
            owner is an error, because IAM would refuse its job a node. A bundle that was built before has its own
            owner. Takes team, caller, session-tag or source-identity (SMSSH_OWNER_SCHEME of the process).
        bundle_prefix: Under which prefix bundles are stored. The job's role must be able to read it. The bucket must
            belong to your own account, or to the one that the address names at its end:
            `s3://bucket/prefix?owner=123456789012`. Takes s3://bucket/prefix (`smssh/bundles` in the SageMaker SDK's
            default bucket).
        offline: True makes bundles that bring all that a job needs but S3 and Session Manager: the agent for the stated
            `machines`, and asyncssh's wheels for the stated `wheels`. Takes True or False (`False`).
        wheels: The Python versions of images without sshd whose asyncssh wheels go into the bundle, about 5 MB each.
            Takes a comma list of Python versions such as 3.11 or 3.11-aarch64 (none).
        plugins: Plugins that go into the bundle: pure Python, installed where the request is made. Code and declared
            package data are sent, nothing else of a package's folder. What they require is not taken along unless it is
            named, too. Images that have them need no copy: they are found there. Takes a comma list of names of
            distributions or modules (none).
        cache: What becomes of step caching, because a cache hit starts no container: `warn` says so, `keep` says
            nothing, `drop` takes the step's CacheConfig away while SSH is on. Takes warn, keep or drop (`warn`).
        endpoints: True gives SSH to every model that is chosen, those of several containers too, and lets endpoints be
            entered that are made from them. Without it, models only carry what transform jobs need, and only those that
            a chosen transform step uses or that were named. Takes True or False (`False`).
        repack: Whether models bring the bundle to transform jobs in the `code/` folder of their artefact. None: those
            that the SDK repacks in the pipeline; others bring it as one of their AdditionalModelDataSources, which AWS
            does not document for batch transform, if a person named the transform step or the model, and go without
            otherwise. True: in the `code/` folder or not at all; for other models of a pipeline, a step is added that
            repacks them, a training job of some minutes. False: artefacts stay as they are. Takes None, True or False
            (none).
        environment: Further variables of the jobs, by name. What a request has already stays, and endpoints get them
            with `endpoints`. Takes texts or pipeline variables by name (none).
        extra: Further keys of `options.json`: for settings that have no option of their own, and for hooks of yours.
            Takes values that JSON can hold, by key (SMSSH_AGENT_URL, SMSSH_STRICT, SMSSH_LOG_TO_STDOUT, SMSSH_SSH_PORT,
            SMSSH_ANNOUNCE, SMSSH_DISABLE_HOOKS; none).

    Raises:
        SmsshError: an option is outside its limits.
    """

    enabled: Any = field(default=None, hash=False)
    hold: tuple[str, ...] = ()
    hold_seconds: int | str | None = None
    hold_max_seconds: int | str | None = None
    idle_seconds: int | str | None = None
    hold_hosts: str | None = None
    price_per_hour: float | str | None = None
    notify: tuple[str, ...] = field(default=(), repr=False)
    notify_events: tuple[str, ...] = ()
    notify_template: str | None = None
    wait: int | str | None = None
    owner: str | None = None
    authorized_keys: tuple[str, ...] = ()
    role: Any = field(default=None, compare=False)
    transport: str = "ssm"
    ssh_server: str | None = None
    hosts: int | None = None
    s3_encryption: str | None = None
    agent: str = "auto"
    agent_version: str | None = None
    machines: tuple[str, ...] = ("x86_64",)
    launcher: str = "auto"
    bundle: str | None = None
    owner_scheme: str | None = None
    bundle_prefix: str | None = None
    offline: bool = False
    wheels: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    cache: str = "warn"
    endpoints: bool = False
    repack: bool | None = None
    environment: Mapping[str, Any] = field(default_factory=dict, compare=False)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
