"""What was measured of one model, on disk. An Optuna study in SQLite, which optuna-dashboard opens."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from pydantic import ValidationError
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import DatabaseError, OperationalError

from tuner.config.config import ModelConfig
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.core.names import why_no_folder
from tuner.core.nvml import Gpu
from tuner.core.record import Record
from tuner.core.slo import SLO, Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.front import hypervolume, reference_latency_ms, usable_points
from tuner.recommend.not_chosen import NotChosen, not_chosen
from tuner.recommend.recommend import Recommendation, recommend
from tuner.recommend.verification import Verification
from tuner.space.candidate import in_words
from tuner.space.space import SearchSpace
from tuner.space.spec import SpaceSpec
from tuner.study.objectives import DIRECTIONS, as_optuna_trial
from tuner.study.provenance import Provenance
from tuner.study.quiet import quiet_optuna
from tuner.study.snapshot import HELD_TOO_LONG

# Whoever else has the database, such as a backup or optuna-dashboard, is to be waited for: a trial took longer.
_PATIENCE_S = 20.0
_IDENTITY = "identity"
_RESULT = "result"
_VERIFIED = "verified"
_CERTIFIED = "certified"
_VERIFYING_S = "verifying_s"
_HYPERVOLUME = "hypervolume"
_RUNS = "runs"
_ENDED = "ended"
_REMARKS = "remarks"


class Identity(Record):
    """What must be the same for trials to belong into one study.

    Attributes:
        repository: Where that is: a folder, or the URL of the server that has it.
        files: Fingerprint of the model's files.
        config: The user's config.pbtxt; empty when there is none.
        space: The search space, as JSON.
        requests: What they are made of, and how they are sent, as far as that is not the default.
        server: Which Triton.
        machine: What it runs on.
        driver: Version of the NVIDIA driver there; empty: there is none, or nobody says.
        max_gpu_memory: Bytes that a server may take of each GPU; None: all that there is.
        output_tolerance: By what share floats of the outputs may differ from the baseline's; None: nobody looked.
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

    def difference(self, other: Identity) -> str:
        """The name of the first field that differs; empty when none does."""
        return next((name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)), "")


class Study:
    """The trials of one model, in order. The first is the baseline.

    It is the only one that writes there while it is open, so that it reads what is stored once, when it is made.

    Raises:
        JobError: it was stored in another form than today's.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._attributes = study.user_attrs
        self._recommendations = dict[tuple[tuple[Percentile, float], ...], Recommendation]()
        try:
            self.identity = Identity.model_validate_json(self._attributes[_IDENTITY])
            self._verified = self._read_verified()
            self._trials = [TrialResult.model_validate_json(t.user_attrs[_RESULT]) for t in self._optuna_trials()]
        except ValidationError:
            reason = "was stored by another version of tritontune"
            raise JobError(f"the study of {study.study_name!r} {reason}; choose another --out") from None

    @classmethod
    def create_or_resume(cls, database: Path, identity: Identity) -> Study:
        """Open the model's study in the database, or begin it.

        Raises:
            JobError: the one that is there is about something else, and the message says what differs; or it is broken.
        """
        with quiet_optuna(), _only_studies(database):
            study = optuna.create_study(
                storage=_storage(database), study_name=identity.model, directions=DIRECTIONS, load_if_exists=True
            )
        study.set_user_attr(_IDENTITY, study.user_attrs.get(_IDENTITY, identity.model_dump_json()))
        stored = cls(study)
        if differs := stored.identity.difference(identity):
            was, now = getattr(stored.identity, differs), getattr(identity, differs)
            change = f" (it was {was}, now {now})" if len(f"{was}{now}") < 120 and "\n" not in f"{was}{now}" else ""
            way_out = "choose another --out"
            if differs == "config" and "://" in identity.repository:
                way_out = "a killed run may have left a candidate's there: unload the model, load it again, and resume"
            raise JobError(
                f"{database}: cannot resume {identity.model!r}: its {differs} has changed{change}; {way_out}"
            )
        return stored

    @classmethod
    def models(cls, database: Path) -> tuple[str, ...]:
        """The models that have a study in the database; one that is just being begun has none yet.

        Raises:
            JobError: it is no database of studies, or of another version.
        """
        with quiet_optuna(), _only_studies(database, to_read=True):
            return _models(_storage(database), database)

    @classmethod
    def load(cls, database: Path, model: str) -> Study:
        """Read a study that is there.

        Raises:
            JobError: the database cannot be read.
        """
        with quiet_optuna(), _only_studies(database, to_read=True):
            return cls(optuna.load_study(storage=_storage(database), study_name=model))

    @classmethod
    def load_all(cls, database: Path) -> tuple[Study, ...]:
        """Read the studies of all models, in order of the names; the database is opened once.

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
        """What was measured again after the search."""
        return self._verified

    def add_verified(self, new: Sequence[Verification]) -> None:
        """Record what was measured again, in one write; it takes the place of what was known of the same point."""
        told = {(each.trial, each.load): each for each in (*self.verified, *new)}
        self._set(_VERIFIED, [each.model_dump_json() for each in told.values()])
        self._verified = self._read_verified()
        self._recommendations.clear()

    def _read_verified(self) -> tuple[Verification, ...]:
        return tuple(Verification.model_validate_json(text) for text in self._attributes.get(_VERIFIED, []))

    def _set(self, name: str, value: Any) -> None:
        self._study.set_user_attr(name, value)
        self._attributes[name] = value

    @property
    def certified(self) -> CertifiedRate | None:
        """The rate that was certified for what is best, or why none was; None when nobody tried."""
        stored, best = self._attributes.get(_CERTIFIED), self.recommendation.best
        told = CertifiedRate.model_validate_json(stored) if stored else None
        # What was certified before a resumed search found better is of another config.
        same = told and best and (told.trial, told.load) == (best.trial.number, best.point.load)
        return told if same else None

    def certify(self, rate: CertifiedRate) -> None:
        """Record the rate that was certified, or that none was."""
        self._set(_CERTIFIED, rate.model_dump_json())

    @property
    def runs(self) -> tuple[Provenance, ...]:
        """How it was measured, in order of time; nothing of what an older version of tritontune measured."""
        return tuple(Provenance.model_validate_json(text) for text in self._attributes.get(_RUNS, []))

    def begin(self, run: Provenance) -> None:
        """Record that a run begins to measure."""
        self._set(_ENDED, None)
        self._set(_RUNS, [each.model_dump_json() for each in (*self.runs, run)])

    @property
    def ended(self) -> str | None:
        """Why the last run ended, in words; None: it goes on, or was killed, or nobody says."""
        told: str | None = self._attributes.get(_ENDED)
        return told

    def end(self, why: str) -> None:
        """Record that the run is over, and why."""
        self._set(_ENDED, why)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else is to be known of its results, a line each."""
        return tuple(self._attributes.get(_REMARKS, ()))

    def remark(self, text: str) -> bool:
        """Record what else is to be known of the results. Returns whether it is new."""
        if text in self.remarks:
            return False
        self._set(_REMARKS, [*self.remarks, text])
        return True

    @property
    def own_trials(self) -> int:
        """How many trials are of this run, and not of an earlier one."""
        return sum(not trial.imported for trial in self._trials)

    @property
    def launches(self) -> int:
        """How often a server was launched: for trials, to verify, and to certify."""
        verifying = sum(max(1, len(each.rounds)) for each in self.verified)
        certified = self.certified
        return self.own_trials + verifying + (1 if certified and certified.launched else 0)

    @property
    def recommendation(self) -> Recommendation:
        """What the study says now, for its own SLO."""
        return self.recommendation_for(self.identity.slo)

    def recommendation_for(self, slo: SLO) -> Recommendation:
        """What the study says now, for any SLO: the one place where stored trials become a recommendation."""
        if slo.limits not in self._recommendations:
            new = recommend(self.trials, slo, self.verified, self.identity.max_gpu_memory)
            self._recommendations[slo.limits] = new
        return self._recommendations[slo.limits]

    @property
    def not_chosen(self) -> tuple[NotChosen, ...]:
        """What looked better than what it recommends for its own SLO, and why that is not the best."""
        return not_chosen(self.trials, self.verified, self.recommendation, self.identity.max_gpu_memory)

    @property
    def space(self) -> SearchSpace:
        """The search space, fitted to the model and the machine by what is stored.

        Raises:
            IndexError: there is no baseline yet.
        """
        asked, effective = self.identity, self._trials[0].effective_config or ""
        batch_size = asked.requests.get("batch_size", 1)
        return _space(asked.space, asked.model, asked.config, effective, self._machine, batch_size=batch_size)

    @property
    def _machine(self) -> Machine:
        """What the servers ran on, as far as it is noted."""
        if not (runs := self.runs):
            return Machine(cpus=None, gpus=(), processor="")
        gpus = tuple(Gpu(index, "", name, None) for index, name in enumerate(runs[-1].gpus))
        return Machine(cpus=runs[-1].cpus, gpus=gpus, processor="")

    @property
    def spent_s(self) -> float:
        """Seconds that the finished trials took."""
        return sum(trial.wall_s for trial in self._trials)

    @property
    def took_s(self) -> float:
        """Seconds that the finished trials and the verification took."""
        return self.spent_s + float(self._attributes.get(_VERIFYING_S, 0.0))

    def add_verifying_s(self, seconds: float) -> None:
        """Record that measuring again took so long."""
        self._set(_VERIFYING_S, self.took_s - self.spent_s + seconds)

    @property
    def hypervolumes(self) -> tuple[float, ...]:
        """Of the front after each trial, the baseline's first."""
        return tuple(float(trial.user_attrs[_HYPERVOLUME]) for trial in self._optuna_trials())

    def optuna_trials(self) -> tuple[FrozenTrial, ...]:
        """The trials as Optuna's samplers see them."""
        return tuple(self._optuna_trials())

    def add(self, result: TrialResult, space: SearchSpace) -> None:
        """Record a finished trial, in one write: it is there as a whole or not at all."""
        slo, max_gpu_memory = self.identity.slo, self.identity.max_gpu_memory
        trials = [*self._trials, result]
        reference = reference_latency_ms(trials[0], slo.percentile, dict(slo.limits).get(slo.percentile))
        attributes: dict[str, Any] = {
            "candidate": in_words(result.parameters, trials[0].parameters),
            _HYPERVOLUME: hypervolume(usable_points(trials, (), max_gpu_memory), slo.percentile, reference),
            _RESULT: result.model_dump_json(),
        }
        self._study.add_trial(as_optuna_trial(result, space, slo, attributes, max_gpu_memory))
        self._trials = trials
        self._recommendations.clear()

    def _optuna_trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


@functools.lru_cache(maxsize=8)
def _space(spec: str, model: str, own: str, effective: str, machine: Machine, *, batch_size: int) -> SearchSpace:
    """Built once of the same: it takes 40 ms, and is asked for whenever results are written."""
    return SearchSpace.build(
        SpaceSpec.model_validate_json(spec),
        ModelConfig.parse(own, f"{model}/config.pbtxt") if own else None,
        ModelConfig.parse(effective, "the effective config"),
        machine,
        batch_size=batch_size,
    )


def _models(storage: optuna.storages.RDBStorage, database: Path) -> tuple[str, ...]:
    studies = storage.get_all_studies()
    names = tuple(sorted(each.study_name for each in studies if _IDENTITY in each.user_attrs))
    for name in names:
        if reason := why_no_folder(name):
            raise JobError(f"{database}: it has a study of a model {name!r}, which {reason}")
    return names


@contextmanager
def _only_studies(database: Path, *, to_read: bool = False) -> Iterator[None]:
    """Tell a file that is broken, or no database of studies, in one line.

    Args:
        database: The file.
        to_read: Whether it is to be read alone; where it is written to, a disk may be full, which is no fault of its.

    Raises:
        JobError: it is no such database.
    """
    try:
        yield
    except (DatabaseError, RuntimeError) as error:  # the latter as Optuna has it of a schema that is not its own
        if isinstance(error, OperationalError) and not to_read:
            raise
        what = str(getattr(error, "orig", None) or error)
        if what == "database is locked":
            what = HELD_TOO_LONG
        raise JobError(f"{database}: cannot be read as the study of a run: {' '.join(what.split())}") from None


def _storage(database: Path) -> optuna.storages.RDBStorage:
    url = URL.create("sqlite", database=str(database)).render_as_string()
    # No connection is kept: nobody would close it.
    return optuna.storages.RDBStorage(
        url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": _PATIENCE_S}}
    )
