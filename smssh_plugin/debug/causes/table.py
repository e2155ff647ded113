"""The causes that are known, as data: by which signs each is told, what it means and what to do.

The signs are those of public reports, in the words of the programs that print them. A cause is looked for in this
order where several fit equally well.

A weight says how much a sign proves: 3, the text itself says so; 2, most often; 1, sometimes.
"""

from __future__ import annotations

import re
from re import Pattern
from typing import NamedTuple

__all__ = ["CAUSES", "UNKNOWN", "Cause", "Sign"]


class Sign(NamedTuple):
    """How a cause shows.

    Attributes:
        where: error, a line that names the exception, or of its message; exit, `signal 9` or `status 2`, by what the entry
            point or a rank ended; log, a line among the last ones of a job that has no exception; service, what
            SageMaker says of the job or the step.
        regex: searched for there. Its named groups may be used in the sentence.
        weight: 3, 2 or 1.
        sentence: what happened; "" for the cause's own sentence.
    """

    where: str
    regex: Pattern[str]
    weight: int = 3
    sentence: str = ""


class Cause(NamedTuple):
    """A cause.

    Attributes:
        id: its name in report.json.
        sentence: what happened, in one sentence without a period.
        advice: what to do.
        hold: whether a hold helps: y (fix it there and retry), part (look there; fix the request), n (no container
            runs, or the fix is elsewhere), "" if unknown.
        signs: by any of which it is told.
    """

    id: str
    sentence: str
    advice: str
    hold: str
    signs: tuple[Sign, ...]


def _error(regex: str, weight: int = 3, sentence: str = "") -> Sign:
    return Sign("error", re.compile(regex), weight, sentence)


def _exit(regex: str, weight: int = 3, sentence: str = "") -> Sign:
    return Sign("exit", re.compile(rf"(?:{regex})$"), weight, sentence)


def _log(regex: str, weight: int = 3, sentence: str = "") -> Sign:
    return Sign("log", re.compile(regex), weight, sentence)


def _service(regex: str, weight: int = 3, sentence: str = "") -> Sign:
    return Sign("service", re.compile(regex), weight, sentence)


CAUSES: tuple[Cause, ...] = (
    # ------------------------------------------------------------ said by SageMaker, before or after the container
    Cause(
        "request-permission",
        "the role may not make the job",
        "add the action to the role that the text names; with an explicit deny, to the boundary or service control policy",
        "n",
        (
            _service(
                r"(?P<who>arn:[\w:/+=,.@-]{1,300})? ?is not authorized to perform: (?P<action>(?:sagemaker|iam):\w{1,60})",
                3,
                "{who|the role} may not call {action}",
            ),
            _service(r"(?i)explicit deny in a (?:permissions boundary|service control policy)", 3),
            _service(
                r"(?i)could not assume role|Please ensure that the role exists and allows principal",
                3,
                "SageMaker cannot assume the job's role",
            ),
        ),
    ),
    Cause(
        "input-empty",
        "an input has no objects, or may not be listed",
        "check bucket, region and prefix (a trailing slash counts), and s3:ListBucket of the role; was the producing step's output empty",
        "n",
        (
            _service(
                r"No S3 objects found under S3 URL \"?(?P<url>s3://[^\s\"]{1,300})",
                3,
                "there are no objects under {url}",
            ),
            _service(
                r"Failed to invoke sagemaker:Create\w{1,40}\. Error Details: null",
                2,
                "SageMaker could not make the job and does not say why; most often an S3 input that cannot be read",
            ),
            _service(
                r"(?i)unable to (?:read|list) .{0,60}s3|S3 .{0,40}(?:does not exist|not found)|NoSuchBucket",
                3,
            ),
        ),
    ),
    Cause(
        "image",
        "the image cannot be pulled or does not fit the instance",
        "check account, region and tag of the image, the repository's policy and the ecr actions of the role, and the architecture it was built for",
        "n",
        (
            _service(
                r"(?i)cannot pull (?:algorithm )?container|cannot find the requested (?:image|repository)|manifest (?:unknown|for .{0,200} not found)|requested image .{0,200}not found|RepositoryNotFound|ecr:\w{1,40}"
            ),
            _log(r"(?i)exec format error", 3, "the image is for another processor architecture"),
            _service(r"(?i)exec format error", 3, "the image is for another processor architecture"),
        ),
    ),
    Cause(
        "quota",
        "a quota of the account is reached",
        "ask for more of this quota, use another instance type, or wait until other jobs have ended",
        "n",
        (
            _service(
                r"(?i)account-level service limit '(?P<limit>[^']{1,120})'", 3, "the quota {limit} is reached"
            ),
            _service(r"ResourceLimitExceeded|(?i:account-level service limit)"),
        ),
    ),
    Cause(
        "capacity",
        "AWS had no machine of this type free",
        "try again later, in another zone or with another instance type; a retry policy for SageMaker.CAPACITY_ERROR does so by itself",
        "n",
        (
            _service(
                r"CapacityError|(?i:insufficient capacity|unable to provision requested (?:ML )?compute capacity)"
            ),
        ),
    ),
    Cause(
        "max-runtime",
        "the job ran longer than it may and was stopped",
        "raise max_run or the timeout, or write checkpoints and go on from them",
        "n",
        (
            _service(r"MaxRuntimeExceeded|(?i:exceeded (?:the )?max(?:imum)? ?runtime)"),
            _service(r"MaxWaitTimeExceeded", 3, "no Spot capacity came within the time that the job waits"),
        ),
    ),
    Cause(
        "spot",
        "the Spot instance was taken away",
        "write checkpoints, raise max_wait, or use on-demand instances while debugging",
        "n",
        (_service(r"(?i)spot (?:instance )?(?:interrupt|reclaim|terminat)|SpotInterruption"),),
    ),
    Cause(
        "disk-full",
        "the disk is full",
        "see which one with df: /, /tmp, /opt/ml and /dev/shm differ; raise volume_size, and remove old checkpoints",
        "y",
        (
            _error(
                r"No space left on device|\[Errno 28\]|(?i:database or disk is full)|ENOSPC|(?i:disk quota exceeded)"
            ),
            _error(
                r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+",
                2,
                "a file could not be written in full, most often because the disk is full",
            ),
            _log(r"No space left on device|ENOSPC"),
        ),
    ),
    Cause(
        "disk-full-transfer",
        "the disk was too small for the input or the output",
        "raise volume_size; fewer or smaller checkpoints and outputs",
        "n",
        (_service(r"(?i)insufficient disk space|no space left on device|disk (?:is )?full"),),
    ),
    Cause(
        "transfer-denied",
        "SageMaker may not read an input or write an output for the job",
        "give the job's role the action on the bucket and on its KMS key; look at the bucket's policy, too",
        "n",
        (
            _service(r"(?i)(?:upload|download) failed.{0,400}(?:access ?denied|[(: ]403\b|forbidden)"),
            _service(r"(?i)(?:access ?denied|[(: ]403\b|forbidden).{0,400}(?:upload|download) failed"),
            _service(
                r"not authorized to perform: (?P<action>(?:kms|s3):\w{1,60})",
                3,
                "the role may not call {action}",
            ),
        ),
    ),
    Cause(
        "transfer",
        "SageMaker could not move an input or an output",
        "read the rest of the text: the object or archive that it names is missing, damaged or of another format",
        "n",
        (
            _service(
                r"(?i)(?P<what>data download|artifact upload|output upload) failed", 3, "the {what} failed"
            ),
        ),
    ),
    Cause(
        "model-data",
        "model.tar.gz is not laid out as the container needs it",
        "no symbolic links, the model at the top, the script in code/; list it with tar -tzf",
        "y",
        (
            _service(r"(?i)failed to extract model data(?: archive)?"),
            _error(
                r"FileNotFoundError.{0,200}/opt/ml/(?:model/code/|input/data/(?:training|model)/model\.tar\.gz)",
                3,
            ),
            _error(r"FileNotFoundError.{0,200}\binference\.py", 2),
            _error(r"ValueError: Exactly one \.pth? or \.pt file is required for PyTorch models", 3),
            _log(r"(?i)failed to extract model data|tar: .{0,200}Not found in archive"),
        ),
    ),
    Cause(
        "payload",
        "a record or an answer is larger than the server takes",
        "look at MaxPayloadInMB, SplitType and BatchStrategy, and at the server's own limit (TS_MAX_REQUEST_SIZE, client_max_body_size)",
        "part",
        (
            _service(
                r"(?i)(?:error|status|code|http)\W{1,3}413\b|request entity too large|message size exceed|payload too large"
            ),
            _error(
                r"(?i)(?:error|status|code|http)\W{1,3}413\b|request entity too large|message size exceed|payload too large"
            ),
            _log(
                r"(?i)ClientError: 413|request entity too large|message size exceed|payload too large|too big to (?:be )?(?:sent|process)"
            ),
        ),
    ),
    Cause(
        "ping",
        "the model server did not answer /ping",
        "read the first error of a worker in the log; load the model by hand with model_fn; models that load long need a longer timeout",
        "y",
        (
            _service(r"(?i)(?:failed to respond to|did not pass the) ping|ping health check"),
            _log(
                r"(?i)backend worker (?:process )?(?:died|exited)|worker (?:died|failed to boot)|GET /ping HTTP/1\.\d\"? 50\d",
                2,
                "the workers of the model server died",
            ),
            _error(r"HaltServer.{0,100}Worker failed to boot", 2, "the workers of the model server died"),
        ),
    ),
    Cause(
        "memory-service",
        "SageMaker says that the memory was too small",
        "take an instance type with more memory, or make the data or the number of workers smaller",
        "part",
        (_service(r"(?i)use an instance type with more memory|out ?of ?memory"),),
    ),
    Cause(
        "service-fault",
        "SageMaker reports a fault of its own",
        "try once more; if it comes again, look at memory and disk first, which it has stood for",
        "n",
        (_service(r"InternalServerError|InternalFailure|(?i:we encountered an internal error)", 2),),
    ),
    # -------------------------------------------------------------------------------------- channels and inputs
    Cause(
        "channel",
        "the script looks for an input that the job does not have",
        "compare with `ls /opt/ml/input/data` and `ls /opt/ml/processing`; correct the name in the script, or add the input to the request",
        "y",
        (
            _error(
                r"KeyError: ['\"]SM_CHANNEL_(?P<channel>\w{1,100})['\"]",
                3,
                "the job has no channel {channel}, whose SM_CHANNEL_{channel} the script reads",
            ),
            _error(
                r"(?:FileNotFoundError|NotADirectoryError|IsADirectoryError|No such file or directory|does not exist|(?i:not found)|(?i:unable to find|could not find)).{0,200}?(?P<path>/opt/ml/(?:input/data|processing(?!/outputs?\b))/[^\s'\"\],]{0,200})",
                3,
                "there is nothing at {path}",
            ),
            _error(
                r"(?P<path>/opt/ml/(?:input/data|processing(?!/outputs?\b))/[^\s'\"]{0,200})['\"]? (?:does not exist|is not a directory|not found|is empty)",
                3,
                "there is nothing at {path}",
            ),
            _error(
                r"(?i)no (?:\w{1,20} )?files? (?:were )?found (?:in|at|under) .{0,20}(?P<path>/opt/ml/(?:input/data|processing)[^\s'\"]{0,200})",
                3,
                "there are no files in {path}",
            ),
        ),
    ),
    Cause(
        "entry-point",
        "the script or its archive is not where the job looks for it",
        "check entry_point and source_dir: a local folder, or a tar.gz on S3 with the script at its top",
        "y",
        (
            _log(
                r"can't open file ['\"]?(?P<path>[^'\"]{1,300}?)['\"]?: \[Errno 2\]",
                3,
                "there is no script {path}",
            ),
            _error(
                r"tarfile\.ReadError|not a gzip file|BadGzipFile",
                2,
                "an archive of the job is not a gzip file",
            ),
            _error(
                r"(?:ClientError|404).{0,200}HeadObject.{0,100}Not Found",
                2,
                "an object that the job reads from S3 does not exist",
            ),
            _error(
                r"(?:ImportError|ModuleNotFoundError): No module named ['\"]?(?:train|inference|__main__)['\"]?$",
                2,
                "the job's script is not in its source folder",
            ),
            _log(
                r"(?:^|/)python[\d.]*: No module named (?P<path>[\w.-]{1,200})",
                2,
                "Python finds no module {path} to run",
            ),
            _log(
                r"(?:^|/)(?:ba|da)?sh: (?:line )?(?:\d+: )?(?P<path>[\w./-]{1,200}\.(?:py|sh)): (?:No such file|not found)",
                3,
                "there is no script {path}",
            ),
        ),
    ),
    # ----------------------------------------------------------------------------------------------- packages
    Cause(
        "module-hidden",
        "a file of the source has the name of a library and hides it",
        "rename the file",
        "y",
        (
            _error(
                r"partially initialized module ['\"](?P<module>[\w.]{1,100})['\"].{0,200}(?:circular import|consider renaming)",
                2,
                "the module {module} imports itself: most often a file {module}.py of the source hides the library",
            ),
            _error(
                r"consider renaming ['\"](?P<path>[^'\"]{1,300})['\"]",
                3,
                "{path} has the name of a library and hides it",
            ),
        ),
    ),
    Cause(
        "package-version",
        "two packages, or a package and the image, do not fit together",
        "compare `pip freeze` with the last good run, and pin the versions in requirements.txt",
        "y",
        (
            _error(
                r"numpy\.(?:dtype|ndarray|ufunc) size changed|_ARRAY_API not found|compiled using NumPy 1\.x|module 'numpy' has no attribute '(?:float|int|bool|object|str|float_|NaN)'",
                3,
                "a package was built for another version of NumPy",
            ),
            _error(
                r"ImportError: cannot import name '?(?P<name>[\w.]{1,100})'? from (?!partially)'?(?P<module>[\w.]{1,100})'?",
                2,
                "{module} has no {name}: most often another version is installed than the code is for",
            ),
            _error(
                r"(?:ImportError|OSError).{0,300}(?:undefined symbol|version [`'\"](?:GLIBC|GLIBCXX|CXXABI)\w*_[\d.]+['\"] not found|cannot open shared object file)",
                3,
                "a compiled package does not fit the libraries of the image",
            ),
            _error(
                r"no kernel image is available for execution|CUDA driver version is insufficient|(?i:is not compatible with the current PyTorch installation)",
                3,
                "the CUDA build does not fit the GPU or its driver",
            ),
            _error(
                r"(?:pkg_resources\.)?(?:ContextualVersionConflict|VersionConflict|DistributionNotFound)\b", 3
            ),
            _error(
                r"ImportError: .{0,200}(?:requires|is required|but found|>=|==).{0,200}(?:version|but|found|installed|==|>=)",
                2,
            ),
            _error(
                r"AttributeError: module ['\"](?P<module>[\w.]{1,100})['\"] has no attribute ['\"](?P<name>\w{1,100})['\"]",
                2,
                "{module} has no {name}: most often another version is installed than the code is for",
            ),
            _error(
                r"TypeError: \w+(?:\.\w+)*\(\) got an unexpected keyword argument",
                1,
                "a function does not know an argument: sometimes another version is installed than the code is for",
            ),
            _error(r"RuntimeError: Failed to import .{0,200} because of the following error", 2),
        ),
    ),
    Cause(
        "package-missing",
        "a package is not installed, or a module is not in the source folder",
        "add it to requirements.txt beside the entry point; a module of your own has to be in source_dir. In a hold: pip install, then retry",
        "y",
        (
            _error(
                r"(?:ModuleNotFoundError|ImportError): No module named ['\"]?(?P<module>[\w.]{1,100})",
                3,
                "Python finds no module {module}",
            ),
            _log(
                r"No module named ['\"]?(?P<module>[\w.]{1,100})['\"]?$",
                2,
                "Python finds no module {module}",
            ),
            _error(
                r"ImportError: .{0,200}(?:(?:is )?not installed|pip install|requires the .{0,60} library|(?:Missing|Unable to find) .{0,40}dependenc)",
                2,
            ),
        ),
    ),
    Cause(
        "requirements",
        "the requirements cannot be installed",
        "pin versions that exist for the image's Python; in a VPC without internet use an index or an endpoint that it reaches",
        "y",
        (
            _log(
                r"No matching distribution found for (?P<package>[\w.\[\]<>=!~, -]{1,100})",
                3,
                "pip finds no {package}",
            ),
            _log(
                r"Could not find a version that satisfies the requirement (?P<package>[\w.\[\]<>=!~,-]{1,100})",
                3,
                "pip finds no {package}",
            ),
            _log(
                r"ResolutionImpossible|(?i:conflicting dependencies)",
                3,
                "pip cannot fulfil all requirements at once",
            ),
            _log(
                r"(?i)ERROR: (?:Failed building wheel for|Could not build wheels for) (?P<package>[\w.-]{1,100})",
                3,
                "the package {package} cannot be built in the image",
            ),
            _log(
                r"Could not open requirements file|Invalid requirement",
                3,
                "pip cannot read the requirements file",
            ),
            _log(
                r"(?i)subprocess-exited-with-error|metadata-generation-failed",
                2,
                "a package cannot be built in the image",
            ),
            _error(r"InstallRequirementsError|InstallModuleError", 3),
        ),
    ),
    # ---------------------------------------------------------------------------------------------------- memory
    Cause(
        "gpu-memory",
        "the memory of the GPU is full",
        "smaller batches with accumulation, checkpointing of activations, mixed precision; see with nvidia-smi what else is on the GPU",
        "y",
        (
            _error(
                r"(?i)CUDA out of memory|OutOfMemoryError: CUDA|CUDA error: out of memory|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|HIP out of memory|MPS backend out of memory"
            ),
            _error(
                r"(?s)ResourceExhaustedError.{0,600}(?:OOM|GPU|allocat)|RESOURCE_EXHAUSTED: Out of memory|failed to allocate .{0,60}(?:on|from) (?:device|GPU)"
            ),
            _error(r"std::bad_alloc.{0,200}(?:CUDA|out_of_memory)|cuMemAlloc", 3),
            _log(r"(?i)CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|std::bad_alloc: out_of_memory: CUDA", 3),
        ),
    ),
    Cause(
        "shared-memory",
        "the shared memory is full",
        "see the size with df /dev/shm; num_workers=0 or the sharing strategy file_system need less; no field of the request makes it larger",
        "y",
        (
            _error(
                r"(?i)out of shared memory|insufficient shared memory|unable to (?:open|allocate) shared memory|/dev/shm.{0,100}No space|bus error.{0,100}shared memory|shm.{0,60}No space left"
            ),
            _log(
                r"(?i)out of shared memory|insufficient shared memory \(shm\)|DataLoader worker .{0,60}Bus error"
            ),
            _log(
                r"^(?:.{0,80}: line \d+: +\d+ )?Bus error",
                2,
                "a process ended with a bus error, most often because /dev/shm is full",
            ),
            _exit(r"signal 7", 2, "a process ended with a bus error, most often because /dev/shm is full"),
        ),
    ),
    Cause(
        "out-of-memory",
        "the memory of the host is full, or a process reached its own limit",
        "take an instance with more memory, fewer workers, or read the data in parts; look for a limit with ulimit -a; in a hold the memory is free again",
        "part",
        (
            _error(
                r"MemoryError\b|Unable to allocate [\d.]+ [KMGT]iB|(?i:cannot allocate memory)|\[Errno 12\]|std::bad_alloc|DefaultCPUAllocator: (?:can't|not enough)|java\.lang\.OutOfMemoryError|Java heap space|(?i:GC overhead limit)",
                3,
                "a process could not get more memory",
            ),
            _error(
                r"(?i)DataLoader worker .{0,60}killed by signal: Killed",
                2,
                "a worker of a DataLoader was killed, most often because the memory was full",
            ),
            _error(
                r"TerminatedWorkerError|(?i:A worker process managed by the executor was unexpectedly terminated)|BrokenProcessPool",
                2,
                "a worker process was ended from outside, most often because the memory was full",
            ),
            _error(
                r"ray\.exceptions\.OutOfMemoryError|OOMKilled|(?i:killed by YARN for exceeding)",
                3,
            ),
            _error(
                r"KilledWorker",
                2,
                "a worker process died again and again, most often because the memory was full",
            ),
            _log(
                r"(?i)container killed by YARN for exceeding|java\.lang\.OutOfMemoryError|GC overhead limit|Java heap space|memory cgroup out of memory|oom-kill",
                3,
            ),
            _log(
                r"^(?:.{0,80}: line \d+: +\d+ )?Killed(?:\s.{0,200})?$",
                2,
                "a process was killed, most often because the memory was full",
            ),
            _exit(r"signal 9", 2, "killed by signal 9, most often because the memory was full"),
        ),
    ),
    # ----------------------------------------------------------------------------------------------- distributed
    Cause(
        "collective-timeout",
        "ranks waited for one that did not come",
        "look at the stacks of all ranks: the one that stands elsewhere is the cause; data of unequal length per rank is frequent",
        "y",
        (
            _error(
                r"(?i)watchdog caught collective operation timeout|timed out .{0,100}(?:waiting for|in) .{0,60}(?:rank|barrier|collective|allreduce|recv|store)|collective operation .{0,100}timed? ?out|StoreTimeoutError|DistStoreError: Timed out|(?:ALLREDUCE|ALLGATHER|BROADCAST|BARRIER).{0,200}timed? ?out",
                2,
            ),
            _error(
                r"(?i)(?:wait timeout after|socket timeout).{0,200}|Timed out initializing process group|(?i:rendezvous.{0,60}timed? ?out)|RendezvousTimeoutError",
                2,
            ),
            _log(r"(?i)watchdog caught collective operation timeout|watchdog (?:thread )?got stuck", 2),
        ),
    ),
    Cause(
        "rank-died",
        "another rank or worker ended, and this one lost it",
        "read the other ranks' and hosts' logs: theirs is the cause",
        "y",
        (
            _error(
                r"(?i)connection closed by (?:remote )?peer|connection reset by peer|remote process exited|NCCL (?:remote error|error)|ncclRemoteError|ncclSystemError|gloo.{0,200}(?:closed|refused|reset)|MPI_ABORT|broken ?pipe",
                2,
            ),
            _error(r"(?:ChildFailedError|ProcessExitedException|ProcessRaisedException)", 1, "a rank failed"),
            _log(r"MPI_ABORT was invoked|mpirun (?:noticed|detected) that", 1, "a rank failed"),
        ),
    ),
    # ---------------------------------------------------------------------------------------------------- crash
    Cause(
        "crash",
        "compiled code crashed",
        "set PYTHONFAULTHANDLER=1 for the retry, which prints where; compare library versions and the instance type",
        "y",
        (
            _log(
                r"Fatal Python error: (?P<what>Segmentation fault|Aborted|Bus error|Illegal instruction|Floating[- ]point exception)",
                3,
                "compiled code crashed: {what}",
            ),
            _log(r"Fatal Python error: (?P<what>[\w ]{1,60})", 2, "Python gave up: {what}"),
            _log(r"(?i)^(?:.{0,80}: line \d+: +\d+ )?(?:segmentation fault|illegal instruction)", 3),
            _log(
                r"terminate called after throwing an instance of '(?P<what>[\w:<> ]{1,100})'",
                2,
                "compiled code ended with {what}",
            ),
            _exit(r"signal 11", 3, "a segmentation fault"),
            _exit(
                r"signal 4",
                3,
                "an instruction that this processor does not have: a build for another instance type",
            ),
            _exit(r"signal 6", 2, "compiled code gave up (SIGABRT)"),
            _exit(r"signal 8", 3, "a division by zero in compiled code (SIGFPE)"),
            _error(
                r"(?i)illegal memory access was encountered|device-side assert triggered|CUDA error: unspecified launch failure|misaligned address",
                3,
                "a kernel on the GPU failed",
            ),
            _error(
                r"(?i)DataLoader worker .{0,60}killed by signal: (?:Segmentation|Aborted|Illegal)|unexpected(?:ly)? .{0,30}segmentation",
                3,
            ),
        ),
    ),
    # --------------------------------------------------------------------------------------------------- network
    Cause(
        "access-denied",
        "AWS denied a call of the script",
        "give the job's role that action on that resource, and look at the bucket's and the key's policy; a held container has the change within a minute",
        "y",
        (
            _error(
                r"(?P<who>arn:[\w:/+=,.@-]{1,300}) is not authorized to perform: (?P<action>[\w-]{1,40}:\w{1,60})",
                3,
                "{who} may not call {action}",
            ),
            _error(
                r"not authorized to perform: (?P<action>[\w-]{1,40}:\w{1,60})",
                3,
                "the job's role may not call {action}",
            ),
            _error(
                r"\((?:403|AccessDenied\w*|Forbidden|UnauthorizedOperation)\) when calling the (?P<operation>\w{1,60}) operation",
                3,
                "AWS denied {operation}",
            ),
            _error(
                r"(?i)AccessDenied(?:Exception)?\b|PermissionError: (?:Access Denied|Forbidden)|(?:status code|Status Code|HTTP)[: ]{1,2}403\b|403 (?:Client Error: )?Forbidden|\(Forbidden\)",
                3,
            ),
            _log(
                r"(?i)(?:fatal error: |download failed: |upload failed: ).{0,300}(?:\(403\)|\(AccessDenied\)|Forbidden)",
                3,
            ),
            _error(
                r"NoCredentialsError|Unable to locate credentials", 2, "the script found no AWS credentials"
            ),
        ),
    ),
    Cause(
        "object-missing",
        "an S3 object that the script reads does not exist",
        "check bucket and key, and whether the step that writes it ran before",
        "y",
        (
            _error(
                r"\((?:404|NoSuchKey|NoSuchBucket)\) when calling the (?P<operation>\w{1,60}) operation", 3
            ),
            _error(r"NoSuchKey|NoSuchBucket", 3),
        ),
    ),
    Cause(
        "network",
        "the script could not reach a service",
        "in a VPC: endpoints, routes and security groups (`smssh doctor --job`); network isolation allows no calls at all",
        "y",
        (
            _error(
                r"(?i)ConnectTimeoutError|EndpointConnectionError|Connect timeout on endpoint|Could not connect to the endpoint URL|Name or service not known|Temporary failure in name resolution|Max retries exceeded|Network is unreachable|NewConnectionError|(?:SSLError|CERTIFICATE_VERIFY_FAILED)|LocalEntryNotFoundError|We couldn't connect to 'https",
                2,
            ),
            _log(
                r"(?i)Temporary failure in name resolution|Network is unreachable|Connect timeout on endpoint|Could not connect to the endpoint URL|Failed to establish a new connection",
                2,
            ),
        ),
    ),
    # --------------------------------------------------------------------------------------- the script's input
    Cause(
        "hyperparameter",
        "an argument of the script has another type or name than it expects",
        'all hyperparameters arrive as text: use json.loads for lists, and compare booleans with "true"; name each one in the parser',
        "y",
        (
            _error(
                r"(?:UserError|Customer ?Error|AlgorithmError|ClientError|exceptions\.\w*Error): .{0,80}(?i:hyper-?parameter)s?\b",
                3,
                "a hyperparameter is not one that the algorithm takes",
            ),
            _log(
                r"error: argument (?P<name>[\w/, -]{1,80}): (?P<what>invalid \w{1,40} value: .{1,100}|expected .{1,60}|invalid choice: .{1,100})",
                3,
                "the argument {name}: {what}",
            ),
            _log(
                r"error: unrecognized arguments: (?P<name>.{1,200})",
                3,
                "the script does not know the arguments {name}",
            ),
            _log(
                r"error: the following arguments are required: (?P<name>.{1,200})",
                3,
                "the script needs the arguments {name}",
            ),
            _log(r"error: ambiguous option", 3),
            _log(
                r"(?:Error: )?(?:Invalid value for|No such option:?|Missing option) ['\"]?(?P<name>-{1,2}[\w-]{1,60})",
                3,
                "the argument {name} is not as the script expects",
            ),
            _error(
                r"ValueError: Some specified arguments are not used by the HfArgumentParser|argparse\.ArgumentTypeError|argparse\.ArgumentError",
                3,
            ),
            _error(
                r"KeyError: ['\"]SM_HP_(?P<name>\w{1,60})['\"]", 3, "the job has no hyperparameter {name}"
            ),
            _error(
                r"InvalidParameterError: The '(?P<name>\w{1,60})' parameter of (?P<what>[\w.]{1,80}) must be",
                2,
                "{what} does not accept the value of its parameter {name}",
            ),
            _error(
                r"TypeError: (?:'[<>=]{1,2}' not supported between instances of '(?:str' and '(?:int|float)|(?:int|float)' and 'str)'|unsupported operand type\(s\) for .{1,10}: '(?:str|int|float)' and '(?:str|int|float)')",
                1,
                "text and a number are mixed; sometimes a hyperparameter, all of which arrive as text",
            ),
        ),
    ),
    Cause(
        "shape",
        "data and model differ in shape or type",
        "compare the columns or the shape of the input with the model's first layer; print both before the failing line",
        "y",
        (
            _error(
                r"(?i)shapes? cannot be multiplied|size mismatch|mismatch in its core dimension|expected scalar type \w+ but found|incompatible shapes?|could not broadcast|must match the size of tensor|expected .{0,40}input.{0,60}to have \d+ channels|Sizes of tensors must match|shape mismatch|operands could not be broadcast|not aligned: |inconsistent numbers of samples|Expected input batch_size|feature_names mismatch|expecting \d+ features|has \d+ features, but \w+ is expecting|Number of features of the|Length mismatch|Input .{0,60} is incompatible with the layer|expected shape=|Given groups=|Input type \(.{1,60}\) and weight type|must be the same (?:dtype|type)|expected m1 and m2 to have the same dtype|Dimensions must be equal|stack expects each tensor to be equal size|cannot reshape (?:array|tensor)|shape '.{1,60}' is invalid for input of size"
            ),
            _error(
                r"(?i)Target \d+ is out of bounds|index out of range in self",
                2,
                "a label or an index is beyond what the model has",
            ),
        ),
    ),
    Cause(
        "columns",
        "the data does not have a column that the script reads",
        "print the columns of the input; compare with those of the last good run",
        "y",
        (
            _error(
                r"KeyError: [\"'\[].{0,200}not in index|None of \[.{0,300}are in the \[?(?:columns|index)|\[.{0,200}\] not found in axis|Missing column provided to|Usecols do not match columns|columns are missing|None of \[.{0,200}\] are in",
                3,
            ),
            _error(r"AnalysisException: .{0,60}(?:UNRESOLVED_COLUMN|cannot resolve)", 3),
            _error(r"EmptyDataError|No columns to parse from file", 3, "an input file is empty"),
        ),
    ),
    Cause(
        "value",
        "a value of the data is not of the kind that the script expects",
        "print the rows that have such values; convert, fill or drop them where the data is read",
        "y",
        (
            _error(
                r"(?i)Input \w{0,20} ?contains (?P<what>NaN|infinity)|(?:array must not|should not|cannot) contain (?:infs or )?(?P<also>NaN|inf)",
                3,
                "the data has values that are not finite numbers",
            ),
            _error(
                r"ValueError: could not convert string to float: (?P<value>.{1,100})",
                2,
                "a value is not a number: {value}",
            ),
            _error(
                r"ValueError: invalid literal for int\(\) with base \d{1,2}: (?P<value>.{1,100})",
                2,
                "a value is not a whole number: {value}",
            ),
            _error(
                r"ValueError: Unable to parse string (?P<value>.{1,100})",
                2,
                "a value is not a number: {value}",
            ),
            _error(
                r"ValueError: cannot convert float (?:NaN|infinity) to integer|IntCastingNaNError",
                2,
                "a value that should be a whole number is missing",
            ),
            _error(
                r"ValueError: time data (?P<value>.{1,100}) (?:does not|doesn't) match format",
                2,
                "a time is written otherwise than the script expects: {value}",
            ),
        ),
    ),
    Cause(
        "gated-model",
        "the model or data set may not be downloaded without a token",
        "give the job a token, accept the model's terms, or put the model into S3",
        "y",
        (
            _error(
                r"(?i)GatedRepoError|Cannot access gated repo|401 Client Error: Unauthorized for url: https://huggingface",
                3,
            ),
            _error(r"RepositoryNotFoundError|is not a local folder and is not a valid model identifier", 2),
        ),
    ),
    Cause(
        "no-gpu",
        "the script needs a GPU and the host shows none",
        "take an instance type with a GPU and an image with CUDA, or load with map_location='cpu'",
        "part",
        (
            _error(
                r"(?i)No CUDA GPUs are available|Found no NVIDIA driver|Torch not compiled with CUDA enabled|torch\.cuda\.is_available\(\) is False|No GPU found",
                3,
            ),
            _error(r"(?i)invalid device ordinal|requires? (?:a |an NVIDIA )?GPU\b(?! memory)", 2),
        ),
    ),
    Cause(
        "property-file",
        "a condition or parameter reads a value that the property file does not have",
        "compare file name, output name and JSON path of the PropertyFile with what the producing step wrote to S3",
        "n",
        (_service(r"(?i)property ?file|JsonGet|json ?path", 2),),
    ),
    Cause(
        "write-denied",
        "the script may not write or read a file of the container",
        "write below /opt/ml/model, /opt/ml/output or /tmp; channels may be read-only",
        "y",
        (
            _error(
                r"PermissionError: \[Errno 13\].{0,20}: ?['\"]?(?P<path>[^'\"]{1,200})|\[Errno 30\]|Read-only file system",
                3,
            ),
        ),
    ),
)
"""What is looked for, first to last."""

UNKNOWN = Cause("unknown", "not known", "", "", ())
"""Where nothing fits: the error stands alone."""
