"""The tables. Rows keep each resource as JSON, beside the columns that lists are filtered and sorted by.

A new field of a resource therefore needs no migration; a new column, index or table needs one in `migrations/`.
"""

from __future__ import annotations

import sqlalchemy as sql

METADATA = sql.MetaData()


def _name(name: str, *, nullable: bool = False) -> sql.Column[str]:
    return sql.Column(name, sql.String(100), nullable=nullable)


COUNTERS = sql.Table(
    "tritontune_counters",
    METADATA,
    sql.Column("name", sql.String(32), primary_key=True),
    sql.Column("last", sql.Integer, nullable=False),
)
"""The last number of each kind of resource. A removed resource's number is not given again."""

JOBS = sql.Table(
    "tritontune_jobs",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("kind", sql.String(16), nullable=False),
    _name("target", nullable=True),
    _name("schedule", nullable=True),
    sql.Column("submitted_by", sql.Text, nullable=False),
    sql.Column("priority", sql.Integer, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("lease", sql.String(100)),
    sql.Column("words", sql.Text, nullable=False),
    sql.Index("tritontune_jobs_by_state", "state", "id"),
    sql.Index("tritontune_jobs_by_kind", "kind", "id"),
    sql.Index("tritontune_jobs_by_target", "target", "id"),
    sql.Index("tritontune_jobs_by_schedule", "schedule", "id"),
    sql.Index("tritontune_jobs_in_queue", "state", "priority", "id"),
    sql.Index("tritontune_jobs_by_submitter", "submitted_by", "state"),
)
"""`words` is the lower-case text that a search looks in."""

JOB_DOCUMENTS = sql.Table(
    "tritontune_job_documents",
    METADATA,
    sql.Column(
        "job_id", sql.Integer, sql.ForeignKey(JOBS.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    sql.Column("document", sql.Text, nullable=False),
)
"""Apart from `JOBS`, as a search reads the rows of all jobs."""

JOB_MODELS = sql.Table(
    "tritontune_job_models",
    METADATA,
    sql.Column("model", sql.Text, primary_key=True),
    sql.Column("job_id", sql.Integer, sql.ForeignKey(JOBS.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)

SUBMISSION_KEYS = sql.Table(
    "tritontune_submission_keys",
    METADATA,
    sql.Column("token", sql.String(100), primary_key=True),
    sql.Column("key", sql.String(255), primary_key=True),
    sql.Column("digest", sql.String(64), nullable=False),
    sql.Column("job_id", sql.Integer, sql.ForeignKey(JOBS.c.id, ondelete="CASCADE"), nullable=False, index=True),
)
"""Not tied to a token's row, as the folders keep keys of removed tokens, too."""

TOKENS = sql.Table(
    "tritontune_tokens",
    METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(100), nullable=False, unique=True),
    sql.Column("digest", sql.String(64), nullable=False),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("created_at", sql.String(40), nullable=False),
    sql.Column("expires_at", sql.String(40)),
    sql.Column("last_used_at", sql.String(40)),
)

SESSIONS = sql.Table(
    "tritontune_sessions",
    METADATA,
    sql.Column("digest", sql.String(64), primary_key=True),
    sql.Column("token_id", sql.String(64), sql.ForeignKey(TOKENS.c.id, ondelete="CASCADE"), nullable=False, index=True),
    sql.Column("created_at", sql.String(40), nullable=False),
    sql.Column("expires_at", sql.String(40), nullable=False, index=True),
)

TARGETS = sql.Table(
    "tritontune_targets",
    METADATA,
    sql.Column("name", sql.String(100), primary_key=True),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("document", sql.Text, nullable=False),
)

SCHEDULES = sql.Table(
    "tritontune_schedules",
    METADATA,
    sql.Column("name", sql.String(100), primary_key=True),
    sql.Column("target", sql.String(100), sql.ForeignKey(TARGETS.c.name), nullable=False, index=True),
    sql.Column("next_at", sql.String(40), index=True),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("document", sql.Text, nullable=False),
)

PROPOSALS = sql.Table(
    "tritontune_proposals",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("job_id", sql.Integer, nullable=False, index=True),
    _name("target", nullable=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("document", sql.Text, nullable=False),
    sql.Index("tritontune_proposals_by_state", "state", "id"),
    sql.Index("tritontune_proposals_by_target", "target", "id"),
    sql.Index("tritontune_proposals_by_model", "model", "id"),
)
"""`job_id` is no foreign key, as the folder of a job may be damaged and those of its proposals not."""

HOLDERS = sql.Table(
    "tritontune_holders",
    METADATA,
    sql.Column("name", sql.String(100), primary_key=True),
    sql.Column("holder", sql.Text, nullable=False),
    sql.Column("lease", sql.String(100), nullable=False),
    sql.Column("until_s", sql.Float, nullable=False),
)
"""Which service uses the database. `until_s` is by the database's clock, in seconds since 1970."""
