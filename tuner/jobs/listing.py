"""What would be searched for each model, without a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder, ModelRepository
from tuner.core import deadlines
from tuner.core.errors import ServerError
from tuner.core.machine import Machine
from tuner.jobs.progress import Progress
from tuner.jobs.run_context import RunContext, terms_of
from tuner.jobs.tuning import chosen_models, own_configs, run_context
from tuner.options.tune_job import TuneJob
from tuner.servers.client import TritonClient
from tuner.servers.protocols import Launch
from tuner.servers.work_folder import work_folder
from tuner.space.bounds import check_fields
from tuner.space.knowledge import backend_of
from tuner.space.originals import originals_of
from tuner.space.space import SearchSpace
from tuner.space.spec import SpaceSpec, load_space
from tuner.study.run_folder import RunFolder

# Backends with two instances on the CPU by default (`SetDefaultInstanceCount`).
_TWO_INSTANCES = {"onnxruntime", "tensorflow"}
_AUTO = model_config_pb2.ModelInstanceGroup.KIND_AUTO


@dataclass(frozen=True)
class ListedSpace:
    """The search space of a model.

    Attributes:
        model: The model's name.
        backend: The backend or platform in its effective config.
        space: The space.
        launched: Whether a server told the effective config.
    """

    model: str
    backend: str
    space: SearchSpace
    launched: bool


def list_spaces(job: TuneJob, progress: Progress) -> Iterator[ListedSpace]:
    """The search space of each model of a job.

    A server is started only for a model whose own config does not say enough.

    Raises:
        UsageError: the job, the repository, or the space is wrong.
        TuningError: no Triton works.
        ServerError: a model does not load.
    """
    if job.url is not None or job.repository is None:
        yield from _by_server(job, progress)
        return
    spec = load_space(job.space)
    models = chosen_models(ModelRepository.open(job.repository), job.model, progress.note)
    check_fields(spec, own_configs(models), job.space)
    machine = Machine.here()
    for model in models:
        if (effective := completed(model, machine)) is None:
            progress.note(f"{model.name}: starting a server, as Triton completes the config")
            yield from _by_server(job.model_copy(update={"model": (model.name,)}), progress)
        else:
            yield _listed(model, effective, machine, job, spec)


def _by_server(job: TuneJob, progress: Progress) -> Iterator[ListedSpace]:
    """The spaces by the effective configs of a server: the running one, or one that is started."""
    with (
        work_folder() as folder,
        run_context(job.in_one_process(), RunFolder(folder / "run"), progress=progress) as (context, models),
    ):
        for model in models:
            running = _loaded(job, model.name) if job.url is not None else None
            effective = running or _served(context, model)
            server = context.description
            yield _listed(model, effective, context.machine, job, context.spec, server=server)


def _listed(  # noqa: PLR0917 (called at two places, just above)
    model: ModelFolder, effective: ModelConfig, machine: Machine, job: TuneJob, spec: SpaceSpec, server: str = ""
) -> ListedSpace:
    space = SearchSpace.build(
        spec,
        model.config,
        effective,
        machine,
        batch_size=job.batch_size,
        model=model.name,
        originals=originals_of(spec, model, job),
        terms=terms_of(job, server),
    )
    config = effective.proto
    return ListedSpace(model.name, config.backend or config.platform, space, launched=bool(server))


def _served(context: RunContext, model: ModelFolder) -> ModelConfig:
    """The effective config of the baseline, from a server."""
    patch = originals_of(context.spec, model, context.job).model_copy(
        update={"config": model.config.text if model.config else ""}
    )
    if (here := context.here) is None:
        raise RuntimeError("the space is listed by a server of this process")
    here.repository.apply(model.name, patch)
    launch = Launch(
        here.repository.path,
        model.name,
        context.out.work / f"{model.name}.log",
        context.job.launch_timeout or deadlines.first_launch_s(model.size_bytes()),
        here.callees_of(model.name).names,
        patch,
    )
    with (
        here.launcher.launch(launch) as server,
        TritonClient(server.endpoint, timeout_s=deadlines.FIRST_ANSWER_S) as client,
    ):
        return ModelConfig.from_proto(client.model_config(model.name))


def _loaded(job: TuneJob, model: str) -> ModelConfig | None:
    """The effective config of a model of a running server; None: it is not loaded."""
    with suppress(ServerError), TritonClient(job.endpoint(job.header)) as client:
        return ModelConfig.from_proto(client.model_config(model))
    return None


def completed(model: ModelFolder, machine: Machine) -> ModelConfig | None:
    """The effective config that follows from the model's own config; None: only a server can tell.

    Backends complete nothing else where inputs and outputs are described; a Python model may complete anything.
    """
    own = model.config
    if own is None or not (backend := backend_of(own)):
        return None
    config = own.proto
    if not (config.input and config.output):
        return None
    if backend == "python" and _completes(model):
        return None
    if any(group.kind == _AUTO for group in config.instance_group) or not config.instance_group:
        if machine.gpus:
            return None
        if not config.instance_group:
            config.instance_group.add()
        for group in config.instance_group:
            group.kind = group.KIND_CPU if group.kind == _AUTO else group.kind
    for group in config.instance_group:
        group.count = group.count or (2 if backend in _TWO_INSTANCES and group.kind == group.KIND_CPU else 1)
    config.backend = config.backend or backend
    return ModelConfig.parse(text_format.MessageToString(config, as_utf8=True), own.source)


def _completes(model: ModelFolder) -> bool:
    """Whether a Python model may complete its config."""
    return any("auto_complete_config" in file.read_text("utf-8", "replace") for file in model.path.glob("*/*.py"))
