"""Groups of options that the command line, job files and Python share: server, remote server, load.

The help of commands and the schema of job files show the descriptions of their fields.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from tuner.core.errors import JobError, nearest
from tuner.core.precision import Precision
from tuner.core.quantities import DURATION, LARGEST_BYTES, parse_duration, parse_size, write_duration
from tuner.core.redaction import HIDDEN, is_secret_name
from tuner.core.slo import SLO, STATISTIC_NAMES
from tuner.options.docker_arguments import parse_docker_args
from tuner.options.endpoint import Endpoint, Header, Tls, parse_header
from tuner.options.environment import parse_environment
from tuner.options.gpus import CONTAINER_DEVICES, VISIBLE_DEVICES, parse_gpus
from tuner.options.mounts import UserMount, parse_mount
from tuner.options.parameters import MOST_UINT64, Parameter, parse_parameter
from tuner.options.triton_args import parse_host_policies, parse_triton_args
from tuner.options.validation_errors import describe, first_fault, shown


def _seconds(value: Any) -> Any:
    """Seconds of a text with its unit. A bare number is refused: its unit would be a guess."""
    return parse_duration(_number_text(value)) if isinstance(value, str | int | float) else value


def _limits(value: Any) -> Any:
    """The limits of an SLO as texts. A bare number is refused when it is read: its unit would be a guess."""
    if not isinstance(value, Mapping):
        return value
    return {name: _number_text(limit) if isinstance(limit, int | float) else limit for name, limit in value.items()}


def _number_text(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _bytes(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _mounts(value: Any) -> Any:
    return tuple(parse_mount(text) if isinstance(text, str) else text for text in _listed(value, "SRC:DST"))


def names(value: Any) -> Any:
    """One name or several, as a tuple."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a name or a list of names, got {shown(value)}")  # noqa: TRY004 (pydantic wants ValueError)
    return value


def _precision(value: Any) -> Any:
    return Precision.parse(value) if isinstance(value, str) else value


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _network(value: str) -> str:
    if value == "none":
        raise ValueError("none: the load generator needs a network")
    return value


def _shapes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    pairs = [parse_shape(text) for text in _listed(value, "{NAME: [D1, D2]} or NAME:D1,D2")]
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"the shape of {min(twice)!r} is given twice")
    return dict(pairs)


def _parameters(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    return dict(parse_parameter(str(text)) for text in _listed(value, "{NAME: VALUE} or NAME:VALUE:TYPE"))


def _headers(value: Any) -> Any:
    if isinstance(value, Mapping):
        if several := next((name for name, content in value.items() if isinstance(content, list | dict)), None):
            raise ValueError(f"{several}: {shown(value[several])} must be text")
        value = [f"{name}:{content}" for name, content in value.items()]
    return tuple(map(_header, _listed(value, "{NAME: VALUE} or NAME:VALUE")))


def _header(value: Any) -> Header:
    """A header from `NAME:VALUE`, or from a pair."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)
    return parse_header(":".join(value) if is_pair else str(value))


def _listed(value: Any, form: str) -> Sequence[Any]:
    """One value or several, as a list."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} cannot be read; write it as {form}, or a list")  # noqa: TRY004 (pydantic wants ValueError)
    return value


def _file_or_word(value: str) -> str:
    if value not in MADE_UP and Path(value).is_dir():
        raise ValueError(f"{value!r} is a folder; name a file (perf_analyzer's JSON, or .npz)")
    if value not in MADE_UP and not Path(value).is_file():
        raise ValueError(f"{value!r} is no such file; write random, zero, or the path of a file")
    return value


# By scheme: the command that copies a repository from cloud storage to this machine.
_COPIED_BY = {
    "s3": "aws s3 sync {} models",
    "gs": "gcloud storage rsync --recursive {} models",
    "as": "azcopy copy {} models --recursive, with the https:// address of the container",
}


def check_is_local(repository: str) -> None:
    """Check that a repository is a path of this machine.

    Raises:
        ValueError: the repository is in cloud storage, or a URL; the message has the fix.
    """
    scheme, separator, _ = repository.partition("://")
    if not separator:
        return
    if command := _COPIED_BY.get(scheme.lower()):
        raise ValueError(
            f"{repository} is in cloud storage; copy the models to this machine first: {command.format(repository)}"
        )
    raise ValueError(f"{repository} is not a path of this machine; to tune a running Triton, use --url")


def _local(value: Any) -> Any:
    if isinstance(value, str):
        check_is_local(value)
    return value


Texts = str | list[str]
TextsOrMapping = str | list[str] | dict[str, Any]
_Duration = Annotated[str, Field(pattern=DURATION)]
_StatisticName = Annotated[str, Field(json_schema_extra={"enum": list(STATISTIC_NAMES)})]

Repository = Annotated[Path, BeforeValidator(_local, json_schema_input_type=str)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=_Duration),
    PlainSerializer(write_duration, return_type=str),
]
Limits = Annotated[
    SLO,
    BeforeValidator(_limits, json_schema_input_type=dict[_StatisticName, _Duration]),
    PlainSerializer(
        lambda slo: {limit.key: f"{limit.limit_ms:.15g}ms" for limit in slo.limits}, return_type=dict[str, str]
    ),
]
Precise = Annotated[
    Precision, BeforeValidator(_precision, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]
Bytes = Annotated[int, Field(gt=0, le=LARGEST_BYTES), BeforeValidator(_bytes, json_schema_input_type=int | str)]
MADE_UP = frozenset({"random", "zero"})
"""The values of `input_data` that are not files."""
ServerKind = Literal["auto", "process", "docker", "remote"]
MOST_INT32 = 2**31 - 1
# The largest seed of numpy's generators, which Optuna's samplers use.
MOST_UINT32 = 2**32 - 1
HIGHEST_RATE = 1e7
"""The highest request rate, in requests/s."""
Rate = Annotated[float, Field(gt=0, le=HIGHEST_RATE)]
Positive = Annotated[int, Field(ge=1, le=MOST_INT32)]
Name = Annotated[str, AfterValidator(_not_empty)]


class Options(BaseModel):
    """The base of frozen options, whose values may also be given as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @classmethod
    def make(cls, options: Mapping[str, Any], *, source: str = "") -> Self:
        """Build the options.

        Args:
            options: Values by field name; texts are parsed.
            source: The file of the options, for error messages. Empty for the command line, whose options are named
                with dashes.

        Raises:
            JobError: an option is wrong; the message is one line with the option and the fix.
        """
        for name, value in options.items():
            # An empty path would be the current folder.
            if isinstance(value, str) and not value.strip() and name in cls.model_fields:
                raise JobError(f"{_where(name, source)}: must not be empty")
            if _is_unsayable(value, set()):
                raise JobError(f"{_where(name, source)}: contains a NUL or half a surrogate pair")
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise JobError(cls._one_line(error, source)) from None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The defaults of all fields that have one, in the form of JSON and job files."""
        return cls.model_construct().model_dump(mode="json")

    @classmethod
    def help_of(cls, name: str) -> str:
        """The help text of a field: its description, and its default value if it has one."""
        default = cls.defaults()[name]
        has_one = not isinstance(default, bool) and default not in (None, "", [], {})
        return f"{cls.model_fields[name].description}{f' Default: {default}.' if has_one else ''}"

    @classmethod
    def _one_line(cls, error: ValidationError, source: str) -> str:
        """The message of the first error, with the option's name as it was written."""
        fault = first_fault(error)
        option = str(fault["loc"][0]) if fault["loc"] else ""
        where = _where(option, source)
        if fault["type"] == "extra_forbidden":
            return f"{source}{': ' * bool(source)}unknown option {option!r}{cls._hint(option)}"
        if fault["type"] == "missing":
            return f"{where} is missing"
        reason = describe(fault)
        if not option:
            return f"{source}: {reason}" if source else reason
        return f"{where}: {reason}"

    @classmethod
    def _hint(cls, option: str) -> str:
        """A hint for an unknown option: the nearest name; for `no_NAME` of a switch, the right form."""
        plain = option.replace("-", "_")
        switch = cls.model_fields.get(plain.removeprefix("no_"))
        if plain.startswith("no_") and switch is not None and switch.annotation is bool:
            return f"; write {plain.removeprefix('no_')}: false"
        return nearest(plain, cls.model_fields)


class ServerOptions(Options):
    """Options of the server that tritontune starts."""

    server: ServerKind = Field(
        "auto",
        description=(
            "Where Triton runs: process, docker, remote (at a URL), or auto. auto means remote with a URL; docker with "
            "a container option, or if no Triton is installed; else process."
        ),
    )
    image: Name | None = Field(None, description="Triton image for Docker. Default: NVIDIA's.")
    triton_path: Path | None = Field(
        None, description="The tritonserver program, or an installation folder with bin/tritonserver."
    )
    launch_timeout: Seconds | None = Field(
        None, description="Time within which a model must be ready. Default: by the model's size and its first launch."
    )
    load_model: Annotated[tuple[Name, ...], BeforeValidator(names, json_schema_input_type=Texts)] = Field(
        (), description="Another model of the repository to load, which the model calls (BLS)."
    )
    triton_arg: Annotated[tuple[str, ...], BeforeValidator(parse_triton_args, json_schema_input_type=Texts)] = Field(
        (), description="Argument for tritonserver, written --flag=value."
    )
    host_policy: Annotated[tuple[str, ...], BeforeValidator(parse_host_policies, json_schema_input_type=Texts)] = Field(
        (),
        description=(
            "Host policy that instances may use: NAME,numa-node=N or NAME,cpu-cores=A-B. "
            "The search tries each for instance_group.host_policy."
        ),
    )
    gpus: Annotated[str, BeforeValidator(parse_gpus, json_schema_input_type=str | int)] | None = Field(
        None,
        description=(
            "GPUs that the server may use: all, none, or indices and UUIDs such as 0,1. Default: all in Docker, "
            "CUDA_VISIBLE_DEVICES for a process."
        ),
    )
    env: Annotated[
        Mapping[str, str | None], BeforeValidator(parse_environment, json_schema_input_type=TextsOrMapping)
    ] = Field({}, description="Environment variable of the server. A name without a value passes on your own variable.")
    shm_size: Bytes | None = Field(None, description="Size of the container's /dev/shm. Default: 1GiB.")
    memory: Bytes | None = Field(None, description="Memory limit of the container. Default: no limit.")
    mount: Annotated[tuple[UserMount, ...], BeforeValidator(_mounts, json_schema_input_type=Texts)] = Field(
        (), description="Folder, file or volume to mount into the container, beside the repository."
    )
    network: Annotated[Name, AfterValidator(_network)] | None = Field(
        None, description="Docker network for the Triton container. Default: the engine's default network."
    )
    user: Name | None = Field(None, description="User that runs the container's processes. Default: you.")
    docker_arg: Annotated[
        Mapping[str, Any], BeforeValidator(parse_docker_args, json_schema_input_type=TextsOrMapping)
    ] = Field(
        {},
        description=(
            "Keyword of docker-py's containers.create, such as nano_cpus=2000000000 (docker run's --cpus). "
            "The value is YAML."
        ),
    )

    @property
    def arguments(self) -> tuple[str, ...]:
        """The user's arguments of `tritonserver`, with those for the host policies."""
        return (*self.triton_arg, *(f"--host-policy={policy}" for policy in self.host_policy))

    @field_validator("env")
    @classmethod
    def _names_devices_once(cls, env: Mapping[str, str | None], info: ValidationInfo) -> Mapping[str, str | None]:
        for name in (VISIBLE_DEVICES, CONTAINER_DEVICES):
            if name in env and info.data.get("gpus"):
                raise ValueError(f"{name!r} conflicts with --gpus; omit one of them")
        return env


class RemoteOptions(Options):
    """Options of a Triton server that runs already."""

    url: Name | None = Field(
        None, description="Address of a running Triton: HOST:PORT (gRPC), or a grpcs://, http:// or https:// URL."
    )
    tls_ca: Path | None = Field(
        None, description="CA certificates to trust, as a PEM file. Default: those that the system trusts."
    )
    tls_cert: Path | None = Field(None, description="Client certificate, as a PEM file.")
    tls_key: Path | None = Field(
        None, description="Private key of the client certificate, as a PEM file. Default: in the certificate's file."
    )
    tls_name: Name | None = Field(
        None, description="Host name in the server's certificate. Default: the host of the address."
    )

    @model_validator(mode="after")
    def _check_remote(self) -> Self:
        given = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        if self.url is not None and (misplaced := sorted(given & _STARTING)):
            raise ValueError(f"{as_option(misplaced[0])} cannot be used with --url: that server runs already")
        if self.url is None and (misplaced := sorted(name for name in given if name.startswith("tls_"))):
            raise ValueError(f"{as_option(misplaced[0])} needs --url")
        if self.tls_key and not self.tls_cert:
            raise ValueError("--tls-key needs --tls-cert, the certificate of the key")
        server = getattr(self, "server", "auto")
        if self.url is None and server == "remote":
            raise ValueError("--server remote needs --url")
        if self.url is not None and server in {"process", "docker"}:
            raise ValueError(f"--server {server} cannot be used with --url: that server runs already")
        return self

    def endpoint(self, headers: tuple[Header, ...]) -> Endpoint:
        """The endpoint at `url`, with these headers.

        Raises:
            JobError: the address is wrong, or a certificate cannot be read.
        """
        files = (self.tls_ca, self.tls_cert, self.tls_key, self.tls_name)
        tls = Tls(*files) if any(files) else None
        return Endpoint.parse(self.url or "", tls=tls, headers=headers)


# Options that only apply to a server that tritontune starts.
_STARTING = ServerOptions.model_fields.keys() - {"server", "launch_timeout"}


class LoadOptions(Options):
    """Options of requests: their contents, and how they are sent."""

    input_data: Annotated[str, AfterValidator(_file_or_word)] = Field(
        "random", description="Input data: random, zero, or a file (perf_analyzer's JSON, or .npz)."
    )
    shape: Annotated[
        Mapping[str, tuple[Positive, ...]], BeforeValidator(_shapes, json_schema_input_type=TextsOrMapping)
    ] = Field(
        {},
        description=(
            "Dimensions of an input of variable shape, without the batch dimension. MODEL/INPUT sets it for one "
            "model, INPUT for every model that has this input."
        ),
    )
    batch_size: Positive = Field(1, description="Inferences in each request.")
    string_length: Annotated[int, Field(ge=0, le=MOST_INT32)] = Field(
        8, description="Length of each random string, in letters."
    )
    string_data: str | None = Field(None, description="Text for all elements of string inputs. Default: random text.")
    request_parameter: Annotated[
        Mapping[str, Parameter], BeforeValidator(_parameters, json_schema_input_type=TextsOrMapping)
    ] = Field({}, description="Parameter of each request, which Triton passes to the model.")
    priority: Annotated[int, Field(ge=0, le=MOST_UINT64)] = Field(
        0, description="Priority of each request, for a model with priority levels. 0 stands for the model's default."
    )
    queue_timeout: Seconds | None = Field(
        None, description="Queue timeout of each request, if the model's queue policy allows one. Default: no timeout."
    )
    header: Annotated[tuple[Header, ...], BeforeValidator(_headers, json_schema_input_type=TextsOrMapping)] = Field(
        (), description="Header of each request."
    )
    compression: Literal["gzip", "deflate"] | None = Field(
        None, description="Compression of requests over gRPC: gzip or deflate. Default: no compression."
    )
    shared_memory: Literal["none", "system", "cuda"] = Field(
        "none", description="Shared memory for tensors, with a server on this machine: none, system or cuda."
    )
    output_shared_memory_size: Positive = Field(
        102_400, description="Bytes of shared memory for each output of unknown size."
    )
    sequence_length: Positive | None = Field(
        None,
        description=(
            "Mean requests per sequence of a stateful model. Default: 20, or the length of the streams in an input "
            "file."
        ),
    )
    sequence_length_variation: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="Largest deviation of a sequence's length from the mean, as a share."
    )
    sequences: Positive = Field(4, description="Concurrent sequences at a request rate.")
    connections: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Connections of each load-generator process."
    )
    processes: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Number of load-generator processes. Default: 1, and more if one is not enough."
    )
    seed: Annotated[int, Field(ge=0, le=MOST_UINT32)] = Field(0, description="Seed of every random choice.")

    @model_validator(mode="after")
    def _check_load(self) -> Self:
        default = LoadOptions.model_fields["output_shared_memory_size"].default
        if self.shared_memory == "none" and self.output_shared_memory_size != default:
            raise ValueError("--output-shared-memory-size needs --shared-memory")
        return self

    def request_options(self) -> dict[str, Any]:
        """The options that must be equal for two measurements to use the same requests, as JSON, without defaults.

        A file of inputs is represented by its SHA-256. Headers and parameters with a secret's name are left out.
        """
        fields = LoadOptions.model_fields.keys() - {"header", "connections", "processes", "seed"}
        content: dict[str, Any] = self.model_dump(mode="json", include=fields, exclude_defaults=True)
        if self.input_data not in MADE_UP:
            content["input_data"] = sha256(Path(self.input_data).read_bytes()).hexdigest()
        if "request_parameter" in content:
            content["request_parameter"] = {
                name: HIDDEN if isinstance(value, str) and is_secret_name(name) else value
                for name, value in content["request_parameter"].items()
            }
        return content


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `NAME:D1,D2` (the name may hold colons).

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    name, colon, dims = str(text).rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        shape = ()
    if not colon or not name or not shape or min(shape) < 1:
        raise ValueError(f"{text!r} is not a shape; write NAME:D1,D2 with dimensions >= 1")
    return name, shape


def _is_unsayable(value: Any, seen: set[int]) -> bool:
    """Whether a value contains a NUL or half a surrogate pair, which YAML's escapes can express."""
    if isinstance(value, str):
        # U+DC80 to U+DCFF stand for undecodable bytes of a file name.
        return "\0" in value or re.search("[\ud800-\udc7f\udd00-\udfff]", value) is not None
    if id(value) in seen or not isinstance(value, Mapping | list | tuple):
        return False
    seen.add(id(value))
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value
    return any(_is_unsayable(part, seen) for part in parts)


def as_option(name: str) -> str:
    """The name of an option on the command line: `max_gpu_memory` is `--max-gpu-memory`."""
    return "--" + name.replace("_", "-")


def _where(name: str, source: str) -> str:
    if source:
        return f"{source}: {name}"
    return "MODEL_REPO" if name == "repository" else as_option(name)
