"""The history of all nights, in a SQLite file or a PostgreSQL database."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from pydantic import TypeAdapter
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from typing_extensions import Self

from tuner.core.errors import JobError
from tuner.core.record import Interval, Record
from tuner.core.slo import Percentile
from tuner.nightly.drift import PastMeasurement
from tuner.nightly.measured import Conditions, Measured

SCHEMA = 1
"""Version of the tables. Databases of other versions are refused and not changed."""

Role = Literal["deployed", "candidate"]

_WAIT_S = 10
_SEPARATOR = ", "
_LATENCIES: TypeAdapter[Mapping[Percentile, Interval]] = TypeAdapter(Mapping[Percentile, Interval])
_tables = sql.MetaData()
_about = sql.Table("tritontune_history", _tables, sql.Column("schema", sql.Integer, nullable=False))
_nights = sql.Table(
    "tritontune_nights",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("night", sql.String(32), nullable=False, index=True),
    sql.Column("repository", sql.Text, nullable=False),
    sql.Column("model", sql.Text, nullable=False, index=True),
    sql.Column("slo", sql.Text, nullable=False),
    sql.Column("outcome", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("regression", sql.Boolean, nullable=False),
    sql.Column("drift", sql.Text, nullable=False),
    sql.Column("action", sql.Text, nullable=False),
    sql.Column("gain", sql.Float),
    sql.Column("gain_low", sql.Float),
    sql.Column("gain_high", sql.Float),
    sql.Column("duration_s", sql.Float, nullable=False),
    sql.Column("files", sql.String(64), nullable=False),
    sql.Column("folder", sql.Text, nullable=False),
    # Databases of earlier versions get this column when they are opened.
    sql.Column("objective", sql.String(32)),
)
_measurements = sql.Table(
    "tritontune_measurements",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("night_id", sql.Integer, sql.ForeignKey(_nights.c.id), nullable=False, index=True),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("config", sql.String(64), nullable=False),
    sql.Column("hardware", sql.Text, nullable=False),
    sql.Column("server", sql.Text, nullable=False),
    sql.Column("requests", sql.Text, nullable=False),
    sql.Column("concurrency", sql.Integer, nullable=False),
    *(
        sql.Column(f"{name}{end}", sql.Float, nullable=False)
        for name in ("throughput", "p99_ms")
        for end in ("", "_low", "_high")
    ),
    sql.Column("launches", sql.Integer, nullable=False),
    sql.Column("turns_per_us", sql.Float),
    sql.Column("cpu_cores", sql.Float),
    sql.Column("doubts", sql.Text, nullable=False),
    # Databases of earlier versions get these columns when they are opened.
    sql.Column("percentile", sql.String(8)),
    sql.Column("latency_ms", sql.Text),
    sql.Column("request_rate", sql.Float),
)


class Night(Record):
    """The result of one night for one model.

    Attributes:
        night: When the night began, ISO 8601 in UTC.
        repository: Path of the model repository.
        model: Name of the model.
        slo: The SLO.
        outcome: `kept`, `improved`, `regression` or `failed`.
        reason: The reason of the gate's decision, or the failure, in a sentence.
        regression: Whether the deployed config got slower.
        drift: The comparison with its history, in a sentence; may be empty.
        action: The action on an improvement, in words; empty: none.
        gain: Value of the objective of the candidate over that of the deployed config, of a latency the reverse; None:
            no candidate was compared.
        duration_s: Duration of the model's part, in seconds.
        files: Fingerprint of the model's files.
        folder: The folder of the model's night; it may have been removed since.
        conditions: The conditions of the measurements, with the config deployed before the night.
        deployed: The measurement of that config.
        candidate: The measurement of the config that replaced it; None: it was not replaced.
        candidate_config: Fingerprint of the config that replaced it.
        objective: The name of the objective: `throughput`, `latency.p99`; None: stored by an earlier version.
        improvement: The measurement of the config that was better, also if it was only proposed; None: there was none.
            The history does not keep it.
    """

    night: str
    repository: str
    model: str
    slo: str
    outcome: str
    reason: str
    regression: bool = False
    drift: str = ""
    action: str = ""
    gain: Interval | None = None
    duration_s: float
    files: str = ""
    folder: str = ""
    conditions: Conditions | None = None
    deployed: Measured | None = None
    candidate: Measured | None = None
    candidate_config: str = ""
    objective: str | None = None
    improvement: Measured | None = None

    @property
    def serving(self) -> Measured | None:
        """The measurement of the config that is deployed after the night; None: it was not measured."""
        return self.candidate or self.deployed


class History:
    """The history.

    Args:
        engine: The database, with its tables.
        place: The file or URL for messages, without the password.
    """

    def __init__(self, engine: sql.Engine, place: str) -> None:
        self._engine = engine
        self.place = place

    @classmethod
    @contextmanager
    def opened(cls, place: str, *, make: bool = True) -> Iterator[Self]:
        """Open the history, and create it if needed.

        Args:
            place: A file, or a `postgresql://` URL.
            make: Whether to create a missing file; else it is an error.

        Raises:
            JobError: the database cannot be opened, or has another version.
        """
        url, connect = _url(place, make=make)
        shown = (
            place if url.get_backend_name() == "sqlite" else sql.make_url(place).render_as_string(hide_password=True)
        )
        engine = sql.create_engine(url, connect_args=connect, poolclass=NullPool)
        history = cls(engine, shown)
        try:
            with history._telling_errors():
                history._prepare()
            yield history
        finally:
            engine.dispose()

    @classmethod
    def checked(cls, place: str) -> str:
        """Check that the history can be used, without creating a file. Returns its place for messages.

        Args:
            place: As for `opened`.

        Raises:
            JobError: it cannot be used.
        """
        path = Path(place)
        if "://" in place or path.exists():
            with cls.opened(place) as history:
                return history.place
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise JobError(f"history: {path}: cannot write to {folder}")
        return place

    def add(self, night: Night) -> None:
        """Record a night of one model in one transaction.

        Raises:
            JobError: the database cannot be written to.
        """
        row = night.model_dump(
            include={"night", "repository", "model", "slo", "outcome", "reason", "regression", "drift", "action"}
            | {"duration_s", "files", "folder", "objective"}
        )
        if night.gain:
            row.update(gain=night.gain.value, gain_low=night.gain.low, gain_high=night.gain.high)
        with self._telling_errors(), self._engine.begin() as connection:
            (number,) = connection.execute(_nights.insert().values(row)).inserted_primary_key or (None,)
            if night.conditions is None:
                return
            about = night.conditions.model_dump(exclude={"repository", "model"})
            if night.deployed:
                connection.execute(
                    _measurements.insert().values(night_id=number, role="deployed", **about, **_row(night.deployed))
                )
            if night.candidate:
                about["config"] = night.candidate_config
                connection.execute(
                    _measurements.insert().values(night_id=number, role="candidate", **about, **_row(night.candidate))
                )

    def past(self, conditions: Conditions) -> list[PastMeasurement]:
        """All measurements under these conditions, the oldest first.

        Raises:
            JobError: the database cannot be read.
        """
        values = conditions.model_dump()
        query = (
            sql.select(_measurements, _nights.c.night, _nights.c.files, _nights.c.regression)
            .join(_nights, _measurements.c.night_id == _nights.c.id)
            .where(_nights.c.repository == values["repository"], _nights.c.model == values["model"])
            .where(*(_measurements.c[name] == values[name] for name in ("config", "hardware", "server", "requests")))
            .order_by(_nights.c.night, _measurements.c.id)
        )
        with self._telling_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        # A regression found that night concerns the config deployed before, not the candidate.
        return [
            PastMeasurement(row["night"], _measured(row), row["files"], row["regression"] and row["role"] == "deployed")
            for row in rows
        ]

    def nights(self, *, models: Sequence[str] = (), last: int | None = None) -> list[Night]:
        """The nights of some or all models, the oldest first.

        Args:
            models: Names of models; empty: all.
            last: The number of latest nights for each model and repository; None: all.

        Raises:
            JobError: the database cannot be read.
        """
        query = sql.select(_nights).order_by(_nights.c.night, _nights.c.id)
        if models:
            query = query.where(_nights.c.model.in_(models))
        with self._telling_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
            measured = _measurements_of(connection)
        nights = [_night(row, measured.get(row["id"], {})) for row in rows]
        if last is None:
            return nights
        kept: list[Night] = []
        for night in reversed(nights):
            if sum((n.repository, n.model) == (night.repository, night.model) for n in kept) < last:
                kept.append(night)
        return kept[::-1]

    def newest(
        self, *, repository: str | None = None, models: Sequence[str] = (), before: int | None = None, limit: int
    ) -> list[tuple[int, Night]]:
        """The newest nights with their numbers, the newest first. It reads little more than these, however many exist.

        Args:
            repository: Path of the model repository; None: all.
            models: Names of models; empty: all.
            before: Only nights with lower numbers; None: all.
            limit: The most nights.

        Raises:
            JobError: the database cannot be read.
        """
        query = sql.select(_nights).order_by(_nights.c.id.desc()).limit(limit)
        if repository is not None:
            query = query.where(_nights.c.repository == repository)
        if models:
            query = query.where(_nights.c.model.in_(models))
        if before is not None:
            query = query.where(_nights.c.id < before)
        with self._telling_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
            measured = _measurements_of(connection, [row["id"] for row in rows])
        return [(row["id"], _night(row, measured.get(row["id"], {}))) for row in rows]

    def models_in(self, repository: str) -> tuple[str, ...]:
        """Names of all models of a repository, sorted.

        Raises:
            JobError: the database cannot be read.
        """
        query = (
            sql.select(_nights.c.model).where(_nights.c.repository == repository).distinct().order_by(_nights.c.model)
        )
        with self._telling_errors(), self._engine.connect() as connection:
            return tuple(connection.execute(query).scalars())

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models, sorted."""
        with self._telling_errors(), self._engine.connect() as connection:
            return tuple(connection.execute(sql.select(_nights.c.model).distinct().order_by(_nights.c.model)).scalars())

    def _prepare(self) -> None:
        with self._engine.begin() as connection:
            if connection.dialect.has_table(connection, _about.name):
                version = connection.execute(sql.select(_about.c.schema)).scalar()
                if version != SCHEMA:
                    raise JobError(
                        f"history: {self.place}: has tables of version {version}, this tritontune needs {SCHEMA}"
                    )
                _add_columns(connection)
                return
            _tables.create_all(connection)
            connection.execute(_about.insert().values(schema=SCHEMA))

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            what = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
            raise JobError(f"history: {self.place}: {what[0].strip()}") from None


def _measurements_of(connection: sql.Connection, nights: Sequence[int] | None = None) -> dict[int, dict[str, Any]]:
    """The rows of measurements by night and role; None: of all nights."""
    query = sql.select(_measurements).order_by(_measurements.c.id)
    if nights is not None:
        query = query.where(_measurements.c.night_id.in_(nights))
    measured: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query).mappings():
        measured.setdefault(row["night_id"], {})[row["role"]] = row
    return measured


def _add_columns(connection: sql.Connection) -> None:
    """Add the columns that databases of earlier versions lack; those versions can still use it."""
    for table in (_nights, _measurements):
        present = {column["name"] for column in sql.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def _url(place: str, *, make: bool) -> tuple[sql.URL, dict[str, Any]]:
    if "://" not in place:
        return _file_url(Path(place), make=make)
    try:
        url = sql.make_url(place)
    except ArgumentError:
        raise JobError("history: not a database URL; give a file or postgresql://USER@HOST/DATABASE") from None
    if url.get_backend_name() == "sqlite" and url.database:
        return _file_url(Path(url.database), make=make)
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise JobError(
            f"history: {url.get_backend_name()} databases are not supported; give a file or postgresql://USER@HOST/DATABASE"
        )
    if importlib.util.find_spec("psycopg") is None:
        raise JobError("history: PostgreSQL needs its driver: pip install 'tritontune[postgres]'")
    # Time limits, so that neither a connection nor a statement delays the night.
    return url.set(drivername="postgresql+psycopg"), {
        "connect_timeout": _WAIT_S,
        "options": f"-c statement_timeout={_WAIT_S * 1000} -c lock_timeout={_WAIT_S * 1000}",
    }


def _file_url(path: Path, *, make: bool) -> tuple[sql.URL, dict[str, Any]]:
    if not make and not path.is_file():
        raise JobError(
            f"history: no such file {path}; `tritontune nightly JOBS.yaml` creates it, or give another with --history"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"history: {path.parent}: cannot be created: {error.strerror}") from None
    return sql.URL.create("sqlite", database=str(path)), {"timeout": _WAIT_S}


def _row(measured: Measured) -> dict[str, Any]:
    return {
        # The column of earlier versions cannot be empty.
        "concurrency": measured.concurrency or 0,
        "request_rate": measured.request_rate,
        "launches": measured.launches,
        "turns_per_us": measured.turns_per_us,
        "cpu_cores": measured.cpu_cores,
        "doubts": _SEPARATOR.join(measured.warnings),
        **_columns("throughput", measured.throughput),
        **_columns("p99_ms", measured.p99_ms),
        "percentile": measured.percentile,
        "latency_ms": _LATENCIES.dump_json(measured.latency_ms).decode(),
    }


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _interval(row: Any, name: str) -> Interval:
    return Interval(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"])


def _measured(row: Any) -> Measured:
    return Measured(
        concurrency=row["concurrency"] or None,
        request_rate=row["request_rate"],
        throughput=_interval(row, "throughput"),
        p99_ms=_interval(row, "p99_ms"),
        percentile=row["percentile"] or "p99",
        latency_ms=_LATENCIES.validate_json(row["latency_ms"] or "{}"),
        launches=row["launches"],
        turns_per_us=row["turns_per_us"],
        cpu_cores=row["cpu_cores"],
        warnings=tuple(row["doubts"].split(_SEPARATOR)) if row["doubts"] else (),
    )


def _night(row: Any, measured: dict[str, Any]) -> Night:
    deployed, candidate = measured.get("deployed"), measured.get("candidate")
    some = deployed or candidate
    plain = {name: row[name] for name in Night.model_fields.keys() & row.keys() if name != "gain"}
    return Night(
        **plain,
        gain=None if row["gain"] is None else _interval(row, "gain"),
        conditions=some
        and Conditions(
            repository=row["repository"],
            model=row["model"],
            **{name: some[name] for name in ("config", "hardware", "server", "requests")},
        ),
        deployed=deployed and _measured(deployed),
        candidate=candidate and _measured(candidate),
        candidate_config=candidate["config"] if candidate else "",
    )
