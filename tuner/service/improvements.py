"""The improvements that a job has found: better configurations of models than the deployed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.config.deploy import sha256_of
from tuner.config.patch import ENV, SERVER_ARGS, Patch, argument_name, argument_value
from tuner.config.repository import CONFIG
from tuner.core.errors import ConfigError, TritontuneError
from tuner.core.record import Interval
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import NightEnded
from tuner.nightly.actions import improved, is_made_for, written_files
from tuner.results.picked import picked_in_words
from tuner.results.result_files import best_diff, changes_of, config_with_provenance
from tuner.results.words import gain_in_words
from tuner.service.job_folder import JobFolder
from tuner.service.proposal_records import sha256
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@dataclass(frozen=True)
class Improvement:
    """A better configuration of a model.

    Attributes:
        model: The model.
        repository: Its repository.
        texts: The files to deploy: their texts by path in the repository.
        before: SHA-256 of the files that it was compared with, by path; None: there was none.
        to_set: What a person must set beside the files.
        diff: The unified diff between both.
        evidence: The comparison in words.
        gain: By the objective, new over deployed.
        throughput: In inferences/s.
        latency_ms: At the percentile.
        percentile: That of the SLO.
        verified: Whether it was relaunched and measured again beside the deployed one.
    """

    model: str
    repository: str
    texts: Mapping[str, str]
    before: Mapping[str, str | None]
    to_set: tuple[str, ...]
    diff: str
    evidence: str
    gain: Interval | None = None
    throughput: Interval | None = None
    latency_ms: Interval | None = None
    percentile: str | None = None
    verified: bool = False


def improvements_of_run(run: RunFolder, min_gain: float) -> Iterator[Improvement | str]:
    """The improvements of a tuning job, each verified, with a gain whose lower bound exceeds `min_gain`.

    Args:
        run: Its run folder.
        min_gain: A share: 0.03 for 3 %.

    Yields:
        An improvement, or a message about a model whose study cannot be read.
    """
    if not run.database.is_file():
        return
    for model in Study.models(run.database):
        try:
            found = _of_study(Study.load(run.database, model), min_gain)
        except (TritontuneError, IndexError) as error:
            yield f"model {model}: no proposal: {error}"
        else:
            if found:
                yield found


def _of_study(study: Study, min_gain: float) -> Improvement | None:
    recommendation = study.recommendation
    best, gain, model = recommendation.best, recommendation.gain, study.identity.model
    is_remote = "://" in study.identity.repository
    if best is None or gain is None or is_remote or not best.verified or not best.trial.number:
        return None
    if gain.low <= 1 + min_gain:
        return None
    patch = changes_of(study, best)
    text = config_with_provenance(study, best, gain, recommendation.slo)
    own = {f"{model}/{CONFIG}": study.identity.config, **study.trials[0].others.files}
    texts = {f"{model}/{CONFIG}": text, **patch.files}
    return Improvement(
        model=model,
        repository=str(Path(study.identity.repository).resolve()),
        texts=texts,
        before={path: sha256(own[path]) if own.get(path) else None for path in texts},
        to_set=tuple(patch.settings_in_words()),
        diff=best_diff(study, best),
        evidence=f"{picked_in_words(study, recommendation)}; {gain_in_words(gain, recommendation.objective)}",
        gain=gain,
        throughput=best.point.throughput,
        latency_ms=best.point.latency_ms[recommendation.percentile],
        percentile=recommendation.percentile,
        verified=True,
    )


class _Told(BaseModel):
    """A part of a night of a model as events have it. Its other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ToldMeasurement(_Told):
    """What is needed of a measurement; see `tuner.nightly.measured.Measured`."""

    throughput: Interval
    percentile: str
    p99_ms: Interval
    latency_ms: Mapping[str, Interval] = {}

    @property
    def latency(self) -> Interval | None:
        """Latency at the percentile; None: unknown."""
        return self.latency_ms.get(self.percentile, self.p99_ms if self.percentile == "p99" else None)


class ToldNight(_Told):
    """What is needed of a night of a model; see `tuner.nightly.history.Night`."""

    folder: str
    repository: str
    model: str
    reason: str
    gain: Interval | None = None
    improvement: ToldMeasurement | None = None


def nights_of(job: JobFolder) -> Iterator[ToldNight]:
    """The nights of the models of a nightly job, by its events. What cannot be read is left out."""
    for event in EventLog(job.path).read():
        if isinstance(event, NightEnded):
            with suppress(ValidationError):  # of a later version
                yield ToldNight.model_validate(event.night)


def improvement_of_night(night: ToldNight) -> Improvement | None:
    """The improvement that a night has found and not deployed; None: there is none, or it is outdated."""
    folder, repository, model = improved(Path(night.folder)), Path(night.repository), night.model
    if not is_made_for(repository, model, folder):
        return None
    try:
        texts = {f"{model}/{CONFIG}": (folder / CONFIG).read_text(encoding="utf-8"), **written_files(folder, model)}
        before = {path: sha256_of(repository / path) for path in texts}
        diff = (folder / "config.diff").read_text(encoding="utf-8")
        to_set = tuple(_to_set(folder))
    except (ConfigError, OSError, UnicodeDecodeError):
        return None
    if not to_set and all(before[path] == sha256(text) for path, text in texts.items()):
        return None
    told = night.improvement
    return Improvement(
        model=model,
        repository=night.repository,
        texts=texts,
        before=before,
        to_set=to_set,
        diff=diff,
        evidence=night.reason,
        gain=night.gain,
        throughput=told.throughput if told else None,
        latency_ms=told.latency if told else None,
        percentile=told.percentile if told else None,
        verified=True,
    )


def _to_set(folder: Path) -> Iterator[str]:
    """The settings of a written patch, in words."""
    arguments, variables = _lines(folder / SERVER_ARGS), _lines(folder / ENV)
    patch = Patch(
        server_args={argument_name(line): argument_value(line) for line in arguments},
        env={line.partition("=")[0]: line.partition("=")[2] for line in variables},
    )
    yield from patch.settings_in_words()


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
