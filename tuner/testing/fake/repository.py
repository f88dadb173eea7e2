"""The model repository: its models, their states, and loading and unloading."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tuner.testing.fake.configs import (
    COMPLETION,
    CONFIG,
    add_missing,
    as_json,
    complete,
    parse_override,
    read_config,
    refuse,
    validate,
    versions_to_load,
)
from tuner.testing.fake.log import say
from tuner.testing.fake.messages import WORDS, Code, InferRequest, RefusedError
from tuner.testing.fake.python_backend import completed_by_model
from tuner.testing.fake.runtime import Runtime
from tuner.testing.fake.served import NATIVE, Served


@dataclass
class _Version:
    state: str
    reason: str = ""
    served: Served | None = None


@dataclass
class _Model:
    """The state of a model.

    Attributes:
        versions: Versions by number.
        override: The config of the load request, instead of its own.
        files: The folder with the files of the load request, instead of its own.
        wanted: Whether it was loaded by its name, rather than for an ensemble.
    """

    versions: dict[int, _Version] = field(default_factory=dict)
    override: str | None = None
    files: Path | None = None
    wanted: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """The models of a server.

    Args:
        paths: The model repositories.
        runtime: The server's clock and control file.
        completes: Whether backends complete configs.
        verbose: Whether the log is verbose.
    """

    def __init__(self, paths: Sequence[Path], runtime: Runtime, *, completes: bool, verbose: bool = False) -> None:
        self._paths = paths
        self._runtime = runtime
        self._completes = completes
        self._verbose = verbose
        self._models: dict[str, _Model] = {}
        self._background: set[asyncio.Task[None]] = set()

    def names(self) -> list[str]:
        """The names of all model folders."""
        names = {entry.name for path in self._paths if path.is_dir() for entry in path.iterdir() if entry.is_dir()}
        return sorted(name for name in names if not name.startswith("."))

    def states(self) -> list[tuple[str, str, str, str]]:
        """Name, version, state and reason of each version that was ever loaded; for other models, only the name."""
        rows: list[tuple[str, str, str, str]] = []
        for name in sorted({*self.names(), *self._models}):
            model = self._models.get(name)
            if model and model.versions:
                rows += [
                    (name, str(number), version.state, version.reason)
                    for number, version in sorted(model.versions.items())
                ]
            elif name in self.names():
                rows.append((name, "", "", ""))
        return rows

    def ready(self, name: str, version: str = "") -> bool:
        """Whether a model is ready."""
        try:
            self.served(name, version)
        except RefusedError:
            return False
        return True

    def served(self, name: str, version: str = "") -> Served:
        """A ready model; without a version, its latest one.

        Raises:
            RefusedError: the model is not ready.
        """
        model = self._models.get(name)
        if model is None or not model.versions:
            raise refuse(f"Request for unknown model: '{name}' is not found", Code.NOT_FOUND)
        ready = {
            number: entry.served for number, entry in model.versions.items() if entry.state == "READY" and entry.served
        }
        if not version or version == "-1":
            if not ready:
                raise refuse(f"Request for unknown model: '{name}' has no available versions", Code.NOT_FOUND)
            served = ready[max(ready)]
        elif version.isdecimal() and int(version) in ready:
            served = ready[int(version)]
        else:
            raise refuse(f"Request for unknown model: '{name}' version {version} is not found", Code.NOT_FOUND)
        return served

    def all_served(self, name: str = "", version: str = "") -> list[Served]:
        """The models for statistics: all versions of all models or of one model, or one version.

        Raises:
            RefusedError: there is no such model or version.
        """
        ready = {
            key: [
                entry.served for _, entry in sorted(model.versions.items()) if entry.state == "READY" and entry.served
            ]
            for key, model in sorted(self._models.items())
        }
        if not name:
            return [served for versions in ready.values() for served in versions if served]
        if not ready.get(name):
            raise refuse(f"requested model '{name}' is not available")
        models = [served for served in ready[name] if served and version in ("", str(served.version))]
        if not models:
            raise refuse(f"requested model version is not available for model '{name}'")
        return models

    def infer(self, request: InferRequest) -> None:
        """Run an inference.

        Raises:
            RefusedError: the model is not ready, or the request is invalid.
        """
        self.served(request.model, request.version).infer(request)

    async def start(self, names: Sequence[str]) -> None:
        """Load the models of the start.

        Raises:
            RefusedError: a model fails to load.
        """
        polled, failed = {}, False
        for name in names:
            try:
                polled[name] = self._poll(name)
            except RefusedError:
                failed = True
        results = await asyncio.gather(
            *(self._load(name, config, wanted=True) for name, config in polled.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if failed:
            raise refuse("failed to load all models", Code.INTERNAL)

    async def load(self, name: str, override: str | None, files: Mapping[str, bytes]) -> None:
        """Load a model, replacing its loaded version.

        Raises:
            RefusedError: the model fails to load; the loaded version stays.
        """
        if files and override is None:
            text = "failed to load '%s', override model directory requires a config to be provided as well"
            raise refuse(text % name)
        model = self._models.setdefault(name, _Model())
        if override is None and not files:
            override = model.override  # core keeps it until the model is unloaded
        folder = _written(files) if files else model.files
        try:
            config = self._poll(name, override, folder)
        except RefusedError as error:
            if not model.versions:
                del self._models[name]
            raise refuse(f"failed to load '{name}', failed to poll from model repository", Code.INTERNAL) from error
        await self._load(name, config, wanted=True)
        model.override, model.files = override, folder
        await self._reload_ensembles(name)

    def unload(self, name: str, *, dependents: bool = False) -> None:
        """Begin to unload a model; a model that is not loaded is no error."""
        model = self._models.get(name)
        if model is None:
            return
        steps = self._steps_of(name) if dependents else set()
        model.override = model.files = None
        model.wanted = False
        for number, version in model.versions.items():
            self._retire(name, number, version, "unloaded")
        for ensemble in self._ensembles_over(name):
            say("E", "model_repository_manager.cc:703", f"Invalid argument: {_unavailable(ensemble, {name})}")
            for number, version in self._models[ensemble].versions.items():
                self._retire(ensemble, number, version, "unloaded")
        for step in sorted(steps):
            self.unload(step, dependents=True)

    async def close(self) -> None:
        """Unload all models, and wait until they are unloaded."""
        for name in list(self._models):
            for number, version in self._models[name].versions.items():
                self._retire(name, number, version, "unloaded")
        while self._background:
            await asyncio.gather(*self._background)

    def live(self) -> int:
        """Number of models that are loaded or unloading."""
        return sum(any(version.served for version in model.versions.values()) for model in self._models.values())

    def _retire(self, name: str, number: int, version: _Version, reason: str) -> None:
        served = version.served
        if served is None or version.state != "READY":
            return
        version.state = "UNLOADING"

        async def stop() -> None:
            await served.unload()
            version.served = None
            if version.state == "UNLOADING":
                version.state, version.reason = "UNAVAILABLE", reason
            say("I", "model_lifecycle.cc:624", f"successfully unloaded '{name}' version {number}")

        self._run(stop())

    def _run(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _folder(self, name: str) -> Path | None:
        return next((path / name for path in self._paths if (path / name).is_dir()), None)

    def _poll(self, name: str, override: str | None = None, files: Path | None = None) -> tuple[pb.ModelConfig, Path]:
        """Read a model's config.

        Raises:
            RefusedError: there is no such model, or its config is invalid, which is logged.
        """
        folder = files or self._folder(name)
        if folder is None or "/" in name:
            text = f"failed to poll model '{name}': model not found in any model repository."
            say("E", "model_repository_manager.cc:1415", text)
            raise refuse(text)
        try:
            if override is None and not self._completes and not (folder / CONFIG).exists():
                raise refuse(f"failed to open text file for read {folder / CONFIG}: No such file or directory")
            config = parse_override(override) if override is not None else read_config(folder / CONFIG)
            if not config.backend and config.platform != "ensemble":
                config.backend = _backend_of(folder)
            validate(config, name)
        except RefusedError as error:
            say("E", "model_repository_manager.cc:1460", f"Poll failed for model directory '{name}': {error.text}")
            raise
        return config, folder

    async def _load(self, name: str, polled: tuple[pb.ModelConfig, Path], *, wanted: bool) -> None:
        """Load a model whose config has been read, and the models that it needs.

        Raises:
            RefusedError: the model fails to load.
        """
        config, folder = polled
        model = self._models.setdefault(name, _Model())
        model.wanted = model.wanted or wanted
        async with model.lock:
            try:
                await self._load_steps(name, config)
                versions = versions_to_load(_named(config, name), _versions_in(folder))
            except RefusedError as error:
                if error.text.startswith("ensemble "):
                    say("E", "model_repository_manager.cc:703", f"Invalid argument: {error.text}")
                else:
                    say("E", "model_repository_manager.cc:724", f"failed to load model '{name}': {error.text}")
                raise refuse(f"load failed for model '{name}': {error.text}") from error
            await self._load_versions(name, model, config, folder, versions)

    async def _load_steps(self, name: str, config: pb.ModelConfig) -> None:
        steps = {step.model_name for step in config.ensemble_scheduling.step}
        missing = set()
        for step in sorted(steps):
            if self.ready(step):
                continue
            try:
                await self._load(step, self._poll(step), wanted=False)
            except RefusedError:
                missing.add(step)
        if missing:
            raise refuse(_unavailable(name, missing))

    async def _load_versions(
        self, name: str, model: _Model, config: pb.ModelConfig, folder: Path, versions: Sequence[int]
    ) -> None:
        before = dict(model.versions)
        for number in versions:
            say("I", "model_lifecycle.cc:472", f"loading: {name}:{number}")
            if number not in before or before[number].state != "READY":
                model.versions[number] = _Version("LOADING")
        loaded: dict[int, Served] = {}
        for number in versions:
            try:
                loaded[number] = await self._load_version(name, number, config, folder)
            except RefusedError as error:
                reason = f"{WORDS[error.code]}: {error.text}"
                say("E", "model_lifecycle.cc:642", f"failed to load '{name}' version {number}: {reason}")
                say("I", "model_lifecycle.cc:777", f"failed to load '{name}'")
                if model.versions[number].state == "LOADING":
                    model.versions[number] = _Version("UNAVAILABLE", reason)
                for served in loaded.values():
                    self._run(served.unload())
                text = f"load failed for model '{name}': version {number} is at UNAVAILABLE state: {reason};\n"
                raise refuse(text) from error
        for number, served in loaded.items():
            model.versions[number] = _Version("READY", served=served)
        for number, old in before.items():
            self._retire(name, number, old, "unloaded")
        say("I", "model_lifecycle.cc:839", f"successfully loaded '{name}'")

    async def _load_version(self, name: str, number: int, config: pb.ModelConfig, folder: Path) -> Served:
        own = pb.ModelConfig()
        own.CopyFrom(config)
        version = folder / str(number)
        if self._completes:
            await _complete_by_backend(own, version)
            validate(own, name)
        complete(own, name)
        if self._verbose:
            say("I", "model_config_utils.cc:1902", f"Server side auto-completed config: {own}")
        served = Served(name, number, own, folder=version, runtime=self._runtime, infer=self.infer)
        await served.load()
        return served

    def _steps_of(self, name: str) -> set[str]:
        served = [version.served for version in self._models[name].versions.values() if version.served]
        return {step.model_name for model in served for step in model.config.ensemble_scheduling.step}

    def _ensembles_over(self, name: str) -> list[str]:
        return [other for other in self._models if name in self._steps_of(other)]

    async def _reload_ensembles(self, name: str) -> None:
        """Reload ensembles that were unloaded because of a model."""
        for other, model in list(self._models.items()):
            if model.wanted and other != name and not self.ready(other):
                try:
                    config, folder = self._poll(other, model.override, model.files)
                except RefusedError:
                    continue
                if name in {step.model_name for step in config.ensemble_scheduling.step}:
                    await self._load(other, (config, folder), wanted=True)


def _named(config: pb.ModelConfig, name: str) -> pb.ModelConfig:
    named = pb.ModelConfig()
    named.CopyFrom(config)
    named.name = name
    return named


def _unavailable(ensemble: str, missing: set[str]) -> str:
    names = ", ".join(sorted(missing))
    return f"ensemble {ensemble} contains models that are not available or ambiguous: {names}"


def _versions_in(folder: Path) -> list[int]:
    return [int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()]


def _backend_of(folder: Path) -> str:
    """The backend of a model without a config, by its files; empty: unknown."""
    for version in _versions_in(folder):
        if (folder / str(version) / COMPLETION).is_file():
            return NATIVE
        if (folder / str(version) / "model.py").is_file():
            return "python"
    return ""


async def _complete_by_backend(config: pb.ModelConfig, version: Path) -> None:
    """Let the backend complete a config.

    Raises:
        RefusedError: the completed config is invalid.
    """
    if config.backend == NATIVE:
        add_missing(config, read_config(version / COMPLETION))
        return
    code = version / (config.default_model_filename or "model.py")
    if config.backend != "python" or not code.is_file():
        return
    if "auto_complete_config" not in code.read_text(encoding="utf-8", errors="replace"):
        return
    from google.protobuf import json_format  # noqa: PLC0415 (most servers never need it)

    completed = await completed_by_model(code, as_json(config))
    config.Clear()
    json_format.ParseDict(completed, config)


def _written(files: Mapping[str, bytes]) -> Path:
    """A new model folder with the files of a load request."""
    folder = Path(tempfile.mkdtemp(prefix="folder"))
    for name, content in files.items():
        path = (folder / name).resolve()
        if folder.resolve() not in path.parents:
            shutil.rmtree(folder)
            raise refuse(f"file {name!r} lies outside of the model's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
