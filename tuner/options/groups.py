"""What can be asked for, in words that the command line, job files, and Python share, and how a wrong word is told."""

from __future__ import annotations

import re
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
from tuner.core.quantities import LARGEST_BYTES, LONGEST_S, parse_duration, parse_size
from tuner.core.redaction import HIDDEN, is_secret_name
from tuner.options.docker_arguments import parse_docker_args
from tuner.options.endpoint import Endpoint, Header, Tls, parse_header
from tuner.options.environment import parse_environment
from tuner.options.faults import in_words, most_telling, shown
from tuner.options.gpus import CONTAINER_DEVICES, VISIBLE_DEVICES, parse_gpus
from tuner.options.mounts import UserMount, parse_mount
from tuner.options.parameters import MOST_UINT64, Parameter, parse_parameter
from tuner.options.triton_args import parse_triton_args


def _seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _mounts(value: Any) -> Any:
    return tuple(parse_mount(text) if isinstance(text, str) else text for text in _listed(value, "SRC:DST"))


def names(value: Any) -> Any:
    """One name, or several."""
    return (value,) if isinstance(value, str) else value


def _precision(value: Any) -> Any:
    return Precision.parse(value) if isinstance(value, str) else value


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("is empty; give a value, or leave it out")
    return value


def _network(value: str) -> str:
    if value == "none":
        raise ValueError("none: without a network, nothing can be measured")
    return value


def _shapes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    pairs = [parse_shape(text) for text in _listed(value, "{NAME: [D1, D2]} or NAME:D1,D2")]
    if twice := {name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1}:
        raise ValueError(f"the shape of {min(twice)!r} is given twice")
    return dict(pairs)


def _parameters(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    return dict(parse_parameter(str(text)) for text in _listed(value, "{NAME: VALUE} or NAME:VALUE:TYPE"))


def _headers(value: Any) -> Any:
    if isinstance(value, Mapping):
        if several := next((name for name, content in value.items() if isinstance(content, list | dict)), None):
            raise ValueError(f"{several}: {shown(value[several])} is no text")
        value = [f"{name}:{content}" for name, content in value.items()]
    try:
        return tuple(map(_header, _listed(value, "{NAME: VALUE} or NAME:VALUE")))
    except JobError as error:
        raise ValueError(str(error).removeprefix("--header: ")) from None


def _header(value: Any) -> Header:
    """Of `NAME:VALUE`, or of the two apart."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)
    return parse_header(":".join(value) if is_pair else str(value))


def _listed(value: Any, form: str) -> Sequence[Any]:
    """What may be given once, or several times as a list."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} cannot be read; write it as {form}, or a list")  # noqa: TRY004 (pydantic wants ValueError)
    return value


def _file_or_word(value: str) -> str:
    if value not in MADE_UP and Path(value).is_dir():
        raise ValueError(f"{value!r} is a folder; name a file: JSON as perf_analyzer reads it, or .npz")
    if value not in MADE_UP and not Path(value).is_file():
        raise ValueError(f"{value!r} is neither random nor zero, and there is no such file")
    return value


# How a repository where only Triton itself can read it is copied to here.
_COPIED_BY = {
    "s3": "aws s3 sync {} models",
    "gs": "gcloud storage rsync --recursive {} models",
    "as": "azcopy copy {} models --recursive, with the https:// address of the container",
}


def check_is_local(repository: str) -> None:
    """See that a repository is a path of this machine.

    Raises:
        ValueError: it is in a cloud's storage, or a server's address; the message says what to do.
    """
    scheme, separator, _ = repository.partition("://")
    if not separator:
        return
    if command := _COPIED_BY.get(scheme.lower()):
        told = f"candidates are made in a copy of the models; copy them to this machine first: {command}"
        raise ValueError(f"{repository} cannot be tuned where it is: {told.format(repository)}")
    raise ValueError(f"{repository} is no path of this machine; name the Triton that runs there with --url")


def _local(value: Any) -> Any:
    if isinstance(value, str):
        check_is_local(value)
    return value


Repository = Annotated[Path, BeforeValidator(_local)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(gt=0, le=LONGEST_S, allow_inf_nan=False),
    PlainSerializer(lambda seconds: f"{seconds:g}s", return_type=str),
]
Precise = Annotated[Precision, BeforeValidator(_precision), PlainSerializer(str, return_type=str)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(gt=0, le=LARGEST_BYTES)]
MADE_UP = frozenset({"random", "zero"})
"""What `input_data` is where it is no file."""
ServerKind = Literal["auto", "process", "docker", "remote"]
MOST_INT32 = 2**31 - 1
# As numpy's generators, which Optuna's samplers have, take it.
MOST_UINT32 = 2**32 - 1
Positive = Annotated[int, Field(ge=1, le=MOST_INT32)]
Name = Annotated[str, AfterValidator(_not_empty)]


class Options(BaseModel):
    """A frozen set of options that knows how a person writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @classmethod
    def make(cls, options: Mapping[str, Any], *, source: str = "") -> Self:
        """Build it of options by their names.

        Args:
            options: As the attributes are named; values may be the texts that a person writes.
            source: Where they come from, to begin an error with; empty for the command line, whose options
                are then named with their dashes.

        Raises:
            JobError: one line that names the option and what would be right.
        """
        for name, value in options.items():
            # An empty path would be the current folder.
            if isinstance(value, str) and not value.strip() and name in cls.model_fields:
                raise JobError(f"{_where(name, source)}: is empty; give a value, or leave it out")
            if _is_unsayable(value, set()):
                raise JobError(f"{_where(name, source)}: has a character in it that no path and no server takes")
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise JobError(cls._one_line(error, source)) from None

    @classmethod
    def _one_line(cls, error: ValidationError, source: str) -> str:
        """The first fault, in the words of whoever wrote it."""
        fault = most_telling(error)
        option = str(fault["loc"][0]) if fault["loc"] else ""
        where = _where(option, source)
        if fault["type"] == "extra_forbidden":
            return f"{where} is no option{cls._hint(option)}"
        if fault["type"] == "missing":
            return f"{where} is missing"
        reason = in_words(fault)
        if not option:
            return f"{source}: {reason}" if source else reason
        return f"{where}: {reason}"

    @classmethod
    def _hint(cls, option: str) -> str:
        """The nearest right name; of a switch that the command line has as `--no-NAME`, how it is written."""
        plain = option.replace("-", "_")
        switch = cls.model_fields.get(plain.removeprefix("no_"))
        if plain.startswith("no_") and switch is not None and switch.annotation is bool:
            return f"; write {plain.removeprefix('no_')}: false"
        return nearest(plain, cls.model_fields)


class ServerOptions(Options):
    """How to get a Triton.

    Attributes:
        server: `docker`, `process`, `remote` (one that runs already), or `auto`: remote where there is a `url`, Docker
            with `image` or another option of containers, or where there is no Triton.
        image: The Triton image for Docker; None: the one that `tuner.servers.choose` names.
        triton_path: A `tritonserver`, or the folder of an installation that has one in `bin/`.
        launch_timeout: Seconds within which a model must be ready; None: by its size, and by what it took at first.
        load_model: More models of the repository to load, which the tuned one calls (BLS); those that Triton says are
            missing are found without.
        triton_arg: More arguments for `tritonserver`, each as `--flag=value`.
        gpus: `all`, `none`, or indices and UUIDs, as `0,1`; None: in Docker all that there are, and for a process as
            our own environment says.
        env: Variables for the server; None as a value hands on our own.
        shm_size: Bytes of a container's /dev/shm; None: 1 GiB.
        memory: Bytes that a container may take; None: no limit.
        mount: What a container sees beside the repository.
        network: That a container joins; None: the engine's default.
        user: As whom a container runs; None: as us.
        docker_arg: More keywords of docker-py's `containers.create`.
    """

    server: ServerKind = "auto"
    image: Name | None = None
    triton_path: Path | None = None
    launch_timeout: Seconds | None = None
    load_model: Annotated[tuple[Name, ...], BeforeValidator(names)] = ()
    triton_arg: Annotated[tuple[str, ...], BeforeValidator(parse_triton_args)] = ()
    gpus: Annotated[str, BeforeValidator(parse_gpus)] | None = None
    env: Annotated[Mapping[str, str | None], BeforeValidator(parse_environment)] = {}
    shm_size: Bytes | None = None
    memory: Bytes | None = None
    mount: Annotated[tuple[UserMount, ...], BeforeValidator(_mounts)] = ()
    network: Annotated[Name, AfterValidator(_network)] | None = None
    user: Name | None = None
    docker_arg: Annotated[Mapping[str, Any], BeforeValidator(parse_docker_args)] = {}

    @field_validator("env")
    @classmethod
    def _names_devices_once(cls, env: Mapping[str, str | None], info: ValidationInfo) -> Mapping[str, str | None]:
        for name in (VISIBLE_DEVICES, CONTAINER_DEVICES):
            if name in env and info.data.get("gpus"):
                raise ValueError(f"{name!r} says what --gpus says; leave one of them out")
        return env


class RemoteOptions(Options):
    """Where a Triton runs already.

    Attributes:
        url: `HOST:PORT` of its gRPC endpoint, or a URL with grpc, grpcs, http or https.
        tls_ca: For `grpcs` and `https`: certificates to trust, PEM; None: those that the system trusts.
        tls_cert: Our own certificate.
        tls_key: Its key.
        tls_name: The name in the server's certificate, where it is not that of the URL.
    """

    url: Name | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_name: Name | None = None

    @model_validator(mode="after")
    def _check_remote(self) -> Self:
        given = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        if self.url is not None and (misplaced := sorted(given & _STARTING)):
            raise ValueError(f"{as_option(misplaced[0])} says how to start a server, and --url names one that runs")
        if self.url is None and (misplaced := sorted(name for name in given if name.startswith("tls_"))):
            raise ValueError(f"{as_option(misplaced[0])} is for a server at a --url")
        if self.tls_key and not self.tls_cert:
            raise ValueError("--tls-key is the key of a certificate; name that with --tls-cert")
        server = getattr(self, "server", "auto")
        if self.url is None and server == "remote":
            raise ValueError("--server remote needs --url, where the Triton runs")
        if self.url is not None and server in {"process", "docker"}:
            raise ValueError(f"--server {server} starts a server, and --url names one that runs")
        return self

    def endpoint(self, headers: tuple[Header, ...]) -> Endpoint:
        """Of the server at `url`.

        Raises:
            JobError: it is no address, or a certificate cannot be read.
        """
        files = (self.tls_ca, self.tls_cert, self.tls_key, self.tls_name)
        tls = Tls(*files) if any(files) else None
        return Endpoint.parse(self.url or "", tls=tls, headers=headers)


# What says how to start a server, and nothing about one that runs.
_STARTING = ServerOptions.model_fields.keys() - {"server", "launch_timeout"}


class LoadOptions(Options):
    """What requests are made of, and how they are sent.

    Attributes:
        input_data: `random` (another for each of a pool of requests), `zero`, or a file: JSON as perf_analyzer reads
            it, or `.npz`.
        shape: Dimensions for inputs of variable shape, without the batch dimension: by input, for every model that has
            it, or by `MODEL/INPUT`, for one.
        batch_size: Inferences in each request.
        string_length: Letters in each random element of BYTES.
        string_data: One text for all elements of BYTES.
        request_parameter: Parameters of each request, by name, or as `NAME:VALUE:TYPE`.
        priority: Of each request, for a model with priority levels.
        queue_timeout: How long each request may wait in a queue that knows time-outs, in seconds.
        header: Sent with each request, as `NAME:VALUE`.
        compression: Of request bodies, over gRPC.
        shared_memory: Where tensors lie: `system` and `cuda` spare them the network, for a server on this machine.
        output_shared_memory_size: Bytes for an output of unknown size.
        sequence_length: Mean number of requests in a sequence of a stateful model; None: 20, and with `input_data`
            from a file, a sequence is one stream of it.
        sequence_length_variation: Lengths lie within this share around the mean.
        sequences: Sequences under way at once at a request rate.
        connections: Over which each process spreads its requests.
        processes: That offer the load; None: one, and more where one is not enough and there are cores for it.
        seed: Of every random choice.
    """

    input_data: Annotated[str, AfterValidator(_file_or_word)] = "random"
    shape: Annotated[Mapping[str, tuple[Positive, ...]], BeforeValidator(_shapes)] = {}
    batch_size: Positive = 1
    string_length: Annotated[int, Field(ge=0, le=MOST_INT32)] = 8
    string_data: str | None = None
    request_parameter: Annotated[Mapping[str, Parameter], BeforeValidator(_parameters)] = {}
    priority: Annotated[int, Field(ge=0, le=MOST_UINT64)] = 0
    queue_timeout: Seconds | None = None
    header: Annotated[tuple[Header, ...], BeforeValidator(_headers)] = ()
    compression: Literal["gzip", "deflate"] | None = None
    shared_memory: Literal["none", "system", "cuda"] = "none"
    output_shared_memory_size: Positive = 102_400
    sequence_length: Positive | None = None
    sequence_length_variation: Annotated[float, Field(ge=0, le=1)] = 0.2
    sequences: Positive = 4
    connections: Annotated[int, Field(ge=1, le=256)] = 1
    processes: Annotated[int, Field(ge=1, le=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST_UINT32)] = 0

    @model_validator(mode="after")
    def _check_load(self) -> Self:
        default = LoadOptions.model_fields["output_shared_memory_size"].default
        if self.shared_memory == "none" and self.output_shared_memory_size != default:
            raise ValueError("--output-shared-memory-size has no use without --shared-memory")
        return self

    def what_is_sent(self) -> dict[str, Any]:
        """What must be the same for two measurements to be of the same requests, as JSON takes it; without defaults.

        Of a file of inputs that is what it holds. Headers may be secret, and stay out, as do the values of parameters
        with the name of a secret.
        """
        fields = LoadOptions.model_fields.keys() - {"header", "connections", "processes", "seed"}
        told: dict[str, Any] = self.model_dump(mode="json", include=fields, exclude_defaults=True)
        if self.input_data not in MADE_UP:
            told["input_data"] = sha256(Path(self.input_data).read_bytes()).hexdigest()
        if "request_parameter" in told:
            told["request_parameter"] = {
                name: HIDDEN if isinstance(value, str) and is_secret_name(name) else value
                for name, value in told["request_parameter"].items()
            }
        return told


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `NAME:D1,D2` (the name may hold colons).

    Raises:
        ValueError: one line that says what would be right.
    """
    name, colon, dims = str(text).rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        shape = ()
    if not colon or not name or not shape or min(shape) < 1:
        raise ValueError(f"{text!r} is no shape; write it as NAME:D1,D2 with dimensions of 1 and more")
    return name, shape


def _is_unsayable(value: Any, seen: set[int]) -> bool:
    """Whether a NUL, or half of a surrogate pair, is in it anywhere: YAML's escapes can say both."""
    if isinstance(value, str):
        # A lone byte of a file's name is such a half, too, and means that byte.
        return "\0" in value or re.search("[\ud800-\udc7f\udd00-\udfff]", value) is not None
    if id(value) in seen or not isinstance(value, Mapping | list | tuple):
        return False
    seen.add(id(value))
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value
    return any(_is_unsayable(part, seen) for part in parts)


def as_option(name: str) -> str:
    """An option's name as the command line has it: `max_gpu_memory` is `--max-gpu-memory`."""
    return "--" + name.replace("_", "-")


def _where(name: str, source: str) -> str:
    if source:
        return f"{source}: {name}"
    return "MODEL_REPO" if name == "repository" else as_option(name)
