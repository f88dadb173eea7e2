"""The stored measurements of one model: an Optuna study in SQLite, which optuna-dashboard can open."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from pydantic import ValidationError
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import DatabaseError, OperationalError

from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.core.names import why_no_folder
from tuner.core.nvml import Gpu
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Record
from tuner.core.slo import SLO, Limit, Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.front import hypervolume, reference_latency_ms, usable_points
from tuner.recommend.host_effects import NO_HOSTS, HostEffects, HostRecord
from tuner.recommend.not_chosen import NotChosen, not_chosen
from tuner.recommend.recommend import Recommendation, recommend
from tuner.recommend.verification import Verification
from tuner.recommend.warm_up import WarmUp
from tuner.space.candidate import in_words
from tuner.space.space import SearchSpace
from tuner.space.spec import SpaceSpec
from tuner.study.objectives import DIRECTIONS, as_optuna_trial
from tuner.study.provenance import Provenance
from tuner.study.quiet import quiet_optuna
from tuner.study.snapshot import HELD_TOO_LONG

# Seconds to wait for another process that locks the database, such as a backup or optuna-dashboard.
_LOCK_TIMEOUT_S = 20.0
_IDENTITY = "identity"
_RESULT = "result"
_VERIFIED = "verified"
_CERTIFIED = "certified"
_WARM_UP = "warm_up"
_VERIFYING_S = "verifying_s"
_HYPERVOLUME = "hypervolume"
_RUNS = "runs"
_ENDED = "ended"
_REMARKS = "remarks"
_COMPOSED = "space"
_ASIDE = "set_aside"
_HOSTS = "hosts"


class Identity(Record):
    """The properties that must be equal for trials to belong to one study.

    Attributes:
        model: Name of the model.
        repository: The folder of the model repository, or the URL of the server.
        files: Fingerprint of the model's files.
        config: Text of the user's config.pbtxt; empty: there is none.
        slo: The SLO.
        space: The search space, as JSON.
        requests: The content of requests and the way they are sent, without defaults.
        server: Description of Triton and how it is launched.
        machine: Description of the server's machine.
        seed: The seed of all random choices.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        output_tolerance: Relative tolerance of float outputs; None: outputs were not compared.
        driver: Version of the NVIDIA driver; empty: none or unknown.
        others: A hash of the user's own values at places that the space changes outside the config; empty: none.
        objective: The objective; studies of earlier versions maximize throughput.
    """

    model: str
    repository: str
    files: str
    config: str
    slo: SLO
    space: str
    requests: dict[str, Any]
    server: str
    machine: str
    seed: int
    max_gpu_memory: int | None = None
    output_tolerance: float | None = None
    driver: str = ""
    others: str = ""
    objective: Objective = THROUGHPUT

    @property
    def rate(self) -> float | None:
        """The rate of all measurements, in requests/s; None: the load rises."""
        return self.objective.rate

    @property
    def percentile(self) -> Percentile:
        """The latency percentile that decides."""
        return self.objective.percentile_for(self.slo)


class Study:
    """The stored trials and results of one model. The first trial is the baseline.

    A study has one writer at a time, so the stored data are read only once, when the object is created.

    Raises:
        JobError: the study was stored by an incompatible version.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._attributes = study.user_attrs
        self._recommendations = dict[tuple[Limit, ...], Recommendation]()
        try:
            self.identity = Identity.model_validate_json(self._attributes[_IDENTITY])
            self._verified, self._hosts = self._read_verified(), self._read_hosts()
            self._trials = [TrialResult.model_validate_json(t.user_attrs[_RESULT]) for t in self._optuna_trials()]
        except ValidationError:
            reason = "was stored by another version of tritontune"
            raise JobError(f"the study of {study.study_name!r} {reason}; choose another --out") from None

    @classmethod
    def create_or_resume(cls, database: Path, identity: Identity) -> Study:
        """Open the model's study in the database, or create it.

        Raises:
            JobError: the stored study has another identity (the message says what differs), or cannot be read.
        """
        with quiet_optuna(), _only_studies(database):
            study = optuna.create_study(
                storage=_storage(database), study_name=identity.model, directions=DIRECTIONS, load_if_exists=True
            )
        study.set_user_attr(_IDENTITY, study.user_attrs.get(_IDENTITY, identity.model_dump_json()))
        stored = cls(study)
        if differing := stored.identity.differing_fields(identity):
            differs = differing[0]
            was, now = getattr(stored.identity, differs), getattr(identity, differs)
            change = f" (it was {was}, now {now})" if len(f"{was}{now}") < 120 and "\n" not in f"{was}{now}" else ""
            fix = "choose another --out"
            if differs == "config" and "://" in identity.repository:
                fix = "a killed run may have left a candidate's there: unload the model, load it again, and resume"
            raise JobError(f"{database}: cannot resume {identity.model!r}: its {differs} has changed{change}; {fix}")
        return stored

    @classmethod
    def models(cls, database: Path) -> tuple[str, ...]:
        """Names of the models with a study in the database.

        Raises:
            JobError: the file is not a database of studies, or has another version.
        """
        with quiet_optuna(), _only_studies(database, to_read=True):
            return _models(_storage(database), database)

    @classmethod
    def load(cls, database: Path, model: str) -> Study:
        """Read the study of a model.

        Raises:
            JobError: the database cannot be read.
        """
        with quiet_optuna(), _only_studies(database, to_read=True):
            return cls(optuna.load_study(storage=_storage(database), study_name=model))

    @classmethod
    def load_all(cls, database: Path) -> tuple[Study, ...]:
        """Read the studies of all models, in order of their names, opening the database once.

        Raises:
            JobError: the database cannot be read.
        """
        with quiet_optuna(), _only_studies(database, to_read=True):
            storage = _storage(database)
            names = _models(storage, database)
            return tuple(cls(optuna.load_study(storage=storage, study_name=name)) for name in names)

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """The finished trials, the baseline first."""
        return tuple(self._trials)

    @property
    def verified(self) -> tuple[Verification, ...]:
        """The relaunched points."""
        return self._verified

    def add_verified(self, new: Sequence[Verification]) -> None:
        """Store relaunched points in one write; they replace earlier ones of the same trial and load."""
        latest = {(point.trial, point.load): point for point in (*self.verified, *new)}
        self._set(_VERIFIED, [point.model_dump_json() for point in latest.values()])
        self._verified = self._read_verified()
        self._recommendations.clear()

    def _read_verified(self) -> tuple[Verification, ...]:
        return tuple(Verification.model_validate_json(text) for text in self._attributes.get(_VERIFIED, []))

    @property
    def hosts(self) -> tuple[HostRecord, ...]:
        """The hosts that carried out launches, in the order in which they joined; early versions stored none."""
        return self._hosts

    @property
    def host_effects(self) -> HostEffects:
        """The effects of the hosts, by the launches of the baseline on them; `NO_HOSTS` if there is one host only.

        Relaunches of finalists do not count, so that proposals do not depend on when these end.
        """
        return HostEffects.of(self.hosts, self.trials, (), self.identity.percentile) if self.hosts else NO_HOSTS

    def add_host_record(self, host: HostRecord) -> None:
        """Store a host in one write; it replaces an earlier record of the same name."""
        latest = {record.name: record for record in (*self.hosts, host)}
        self._set(_HOSTS, [record.model_dump_json() for record in latest.values()])
        self._hosts = self._read_hosts()

    def _read_hosts(self) -> tuple[HostRecord, ...]:
        return tuple(HostRecord.model_validate_json(text) for text in self._attributes.get(_HOSTS, []))

    def _set(self, name: str, value: Any) -> None:
        self._study.set_user_attr(name, value)
        self._attributes[name] = value

    @property
    def certified(self) -> CertifiedRate | None:
        """The result of certifying the best config; None: not tried."""
        stored, best = self._attributes.get(_CERTIFIED), self.recommendation.best
        certified = CertifiedRate.model_validate_json(stored) if stored else None
        # A resumed search may have found a better config in the meantime.
        same = certified and best and (certified.trial, certified.load) == (best.trial.number, best.point.load)
        return certified if same else None

    def certify(self, rate: CertifiedRate) -> None:
        """Store the result of certifying."""
        self._set(_CERTIFIED, rate.model_dump_json())

    @property
    def warm_up(self) -> WarmUp | None:
        """The warm-up of the best config, or why there is none; None: its first answer was not slow, or not tried."""
        warm_up, best = self.latest_warm_up, self.recommendation.best
        return warm_up if warm_up and best and warm_up.trial == best.trial.number else None

    @property
    def latest_warm_up(self) -> WarmUp | None:
        """The latest stored warm-up, whatever the best config is now."""
        stored = self._attributes.get(_WARM_UP)
        return WarmUp.model_validate_json(stored) if stored else None

    def offer(self, warm_up: WarmUp) -> None:
        """Store the warm-up of the best config, or why there is none."""
        self._set(_WARM_UP, warm_up.model_dump_json())

    @property
    def runs(self) -> tuple[Provenance, ...]:
        """The provenance of each run of this study, in order of time; runs of early versions are missing."""
        return tuple(Provenance.model_validate_json(text) for text in self._attributes.get(_RUNS, []))

    def begin(self, run: Provenance) -> None:
        """Store that a run begins."""
        self._set(_ENDED, None)
        self._set(_RUNS, [stored.model_dump_json() for stored in (*self.runs, run)])

    @property
    def ended(self) -> str | None:
        """Why the last run ended; None: it is running, was killed, or an early version did not store it."""
        reason: str | None = self._attributes.get(_ENDED)
        return reason

    def end(self, why: str) -> None:
        """Store why the run ended."""
        self._set(_ENDED, why)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on the results, one line each."""
        stored = tuple(self._attributes.get(_REMARKS, ()))
        best = self.recommendation.best if self._trials else None
        if best is None or not best.trial.output_difference:
            return stored
        return (*stored, f"the best config changes what the model answers: {best.trial.output_difference}")

    def remark(self, text: str) -> bool:
        """Store a remark on the results. Returns whether it is new."""
        stored = self._attributes.get(_REMARKS, [])
        if text in stored:
            return False
        self._set(_REMARKS, [*stored, text])
        return True

    @property
    def next_number(self) -> int:
        """A number that no stored trial has, not even one that was set aside."""
        aside: list[int] = self._attributes.get(_ASIDE, [])
        return 1 + max([-1, *(trial.number for trial in self._trials), *aside])

    @property
    def own_trials(self) -> int:
        """Number of trials launched for this study, without those taken over by a warm start."""
        return sum(not trial.imported for trial in self._trials)

    @property
    def launches(self) -> int:
        """Number of server launches: for trials, for verifying, for certifying, and for a warm-up."""
        verifying = sum(max(1, len(point.rounds)) for point in self.verified)
        certified, warm_up = self.certified, self.warm_up
        certifying = 1 if certified and certified.launched else 0
        return self.own_trials + verifying + certifying + (warm_up.launches if warm_up else 0)

    @property
    def recommendation(self) -> Recommendation:
        """The recommendation for the study's own SLO."""
        return self.recommendation_for(self.identity.slo)

    def recommendation_for(self, slo: SLO) -> Recommendation:
        """The recommendation for any SLO. Only this method makes a recommendation from stored trials."""
        if slo.limits not in self._recommendations:
            own = self.identity
            new = recommend(self.trials, slo, self.verified, own.max_gpu_memory, own.objective)
            self._recommendations[slo.limits] = new
        return self._recommendations[slo.limits]

    @property
    def not_chosen(self) -> tuple[NotChosen, ...]:
        """Points that looked better than the recommended one, and why they were not chosen."""
        return not_chosen(self.trials, self.verified, self.recommendation, self.identity.max_gpu_memory)

    @property
    def own_patch(self) -> Patch:
        """The user's config, and the user's values at the other places that candidates change.

        Raises:
            IndexError: the study has no baseline yet.
        """
        return self._trials[0].others.with_config(self.identity.config)

    @property
    def space(self) -> SearchSpace:
        """The search space for the stored model and machine.

        Raises:
            IndexError: the study has no baseline yet.
        """
        asked, effective = self.identity, self._trials[0].effective_config or ""
        batch_size = asked.requests.get("batch_size", 1)
        own = self.own_patch
        spec = self._attributes.get(_COMPOSED, asked.space)
        return _space(spec, asked.model, own.model_dump_json(), effective, self._machine, batch_size=batch_size)

    @property
    def composed_space(self) -> SpaceSpec | None:
        """The space with what was known of the model's backend; None before the baseline, and in early versions."""
        stored = self._attributes.get(_COMPOSED)
        return SpaceSpec.model_validate_json(stored) if stored else None

    def compose(self, spec: SpaceSpec) -> None:
        """Store the space with what is known of the model's backend."""
        self._set(_COMPOSED, spec.model_dump_json())

    @property
    def _machine(self) -> Machine:
        """The stored properties of the servers' machine."""
        if not (runs := self.runs):
            return Machine(cpus=None, gpus=(), processor="")
        gpus = tuple(Gpu(index, "", name, None) for index, name in enumerate(runs[-1].gpus))
        return Machine(cpus=runs[-1].cpus, gpus=gpus, processor="")

    @property
    def spent_s(self) -> float:
        """Duration of the finished trials, in seconds."""
        return sum(trial.wall_s for trial in self._trials)

    @property
    def took_s(self) -> float:
        """Seconds that the search, verifying and certifying took."""
        return self._searched_s + self._verifying_s

    def add_verifying_s(self, seconds: float) -> None:
        """Add to the stored duration of verifying and certifying."""
        self._set(_VERIFYING_S, self._verifying_s + seconds)

    @property
    def _searched_s(self) -> float:
        return sum(trial.wall_s if trial.elapsed_s is None else trial.elapsed_s for trial in self._trials)

    @property
    def _verifying_s(self) -> float:
        return float(self._attributes.get(_VERIFYING_S, 0.0))

    @property
    def hypervolumes(self) -> tuple[float, ...]:
        """Hypervolume of the front after each trial, beginning with the baseline."""
        return tuple(float(trial.user_attrs[_HYPERVOLUME]) for trial in self._optuna_trials())

    def optuna_trials(self) -> tuple[FrozenTrial, ...]:
        """The trials as Optuna's samplers see them."""
        return tuple(self._optuna_trials())

    def add(self, result: TrialResult, space: SearchSpace) -> None:
        """Store a finished trial in one write, so that it is stored completely or not at all."""
        slo, objective, percentile = self.identity.slo, self.identity.objective, self.identity.percentile
        max_gpu_memory = self.identity.max_gpu_memory
        trials = [*self._trials, result]
        reference = reference_latency_ms(trials[0], percentile, slo.limit_ms(percentile))
        points = usable_points(trials, (), max_gpu_memory, objective)
        attributes: dict[str, Any] = {
            "candidate": in_words(result.parameters, trials[0].parameters),
            _HYPERVOLUME: hypervolume(points, percentile, reference, objective),
            _RESULT: result.model_dump_json(),
        }
        self._study.add_trial(as_optuna_trial(result, space, slo, attributes, max_gpu_memory, objective))
        self._trials = trials
        self._recommendations.clear()

    def set_aside(self, numbers: Iterable[int]) -> None:
        """Leave out trials, as what their host measured is not to be trusted. They stay in the database."""
        self._set(_ASIDE, sorted({*self._attributes.get(_ASIDE, []), *numbers}))
        self._trials = [trial for trial in self._trials if trial.number not in self._attributes[_ASIDE]]
        self._recommendations.clear()

    def _optuna_trials(self) -> list[FrozenTrial]:
        stored = self._study.get_trials(deepcopy=False)
        aside = set(self._attributes.get(_ASIDE, []))
        if not aside:
            return stored
        return [trial for trial in stored if json.loads(trial.user_attrs[_RESULT])["number"] not in aside]


@functools.lru_cache(maxsize=8)
def _space(spec: str, model: str, own: str, effective: str, machine: Machine, *, batch_size: int) -> SearchSpace:
    """A cached search space: building it takes 40 ms, and each write of results needs it."""
    patch = Patch.model_validate_json(own)
    return SearchSpace.build(
        SpaceSpec.model_validate_json(spec),
        ModelConfig.parse(patch.config, f"{model}/config.pbtxt") if patch.config else None,
        ModelConfig.parse(effective, "the effective config"),
        machine,
        batch_size=batch_size,
        model=model,
        originals=patch,
    )


def _models(storage: optuna.storages.RDBStorage, database: Path) -> tuple[str, ...]:
    studies = storage.get_all_studies()
    names = tuple(sorted(study.study_name for study in studies if _IDENTITY in study.user_attrs))
    for name in names:
        if reason := why_no_folder(name):
            raise JobError(f"{database}: the model name {name!r} {reason}")
    return names


@contextmanager
def _only_studies(database: Path, *, to_read: bool = False) -> Iterator[None]:
    """Convert errors of a broken file, or of a file that is not a database of studies, to one line.

    Args:
        database: The file.
        to_read: Whether it is only read. Operational errors on writing, such as a full disk, are passed on.

    Raises:
        JobError: the file cannot be read as studies.
    """
    try:
        yield
    except (DatabaseError, RuntimeError) as error:  # Optuna raises RuntimeError for an unknown schema
        if isinstance(error, OperationalError) and not to_read:
            raise
        what = str(getattr(error, "orig", None) or error)
        if what == "database is locked":
            what = HELD_TOO_LONG
        raise JobError(f"{database}: cannot be read as the study of a run: {' '.join(what.split())}") from None


def _storage(database: Path) -> optuna.storages.RDBStorage:
    url = URL.create("sqlite", database=str(database)).render_as_string()
    # No connection pool: nothing would close it.
    return optuna.storages.RDBStorage(
        url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": _LOCK_TIMEOUT_S}}
    )
