"""The first schema."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tritontune_counters",
        sql.Column("name", sql.String(32), primary_key=True),
        sql.Column("last", sql.Integer, nullable=False),
    )
    op.bulk_insert(
        sql.table("tritontune_counters", sql.column("name"), sql.column("last")),
        [{"name": name, "last": 0} for name in ("jobs", "proposals")],
    )
    _jobs()
    _tokens()
    _others()


def _jobs() -> None:
    op.create_table(
        "tritontune_jobs",
        sql.Column("id", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("state", sql.String(16), nullable=False),
        sql.Column("kind", sql.String(16), nullable=False),
        sql.Column("target", sql.String(100)),
        sql.Column("schedule", sql.String(100)),
        sql.Column("submitted_by", sql.Text, nullable=False),
        sql.Column("priority", sql.Integer, nullable=False),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("lease", sql.String(100)),
        sql.Column("words", sql.Text, nullable=False),
    )
    for column in ("state", "kind", "target", "schedule"):
        op.create_index(f"tritontune_jobs_by_{column}", "tritontune_jobs", [column, "id"])
    op.create_index("tritontune_jobs_in_queue", "tritontune_jobs", ["state", "priority", "id"])
    op.create_index("tritontune_jobs_by_submitter", "tritontune_jobs", ["submitted_by", "state"])
    job_id = "tritontune_jobs.id"
    op.create_table(
        "tritontune_job_documents",
        sql.Column(
            "job_id", sql.Integer, sql.ForeignKey(job_id, ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        sql.Column("document", sql.Text, nullable=False),
    )
    op.create_table(
        "tritontune_job_models",
        sql.Column("model", sql.Text, primary_key=True),
        sql.Column("job_id", sql.Integer, sql.ForeignKey(job_id, ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_tritontune_job_models_job_id", "tritontune_job_models", ["job_id"])
    op.create_table(
        "tritontune_submission_keys",
        sql.Column("token", sql.String(100), primary_key=True),
        sql.Column("key", sql.String(255), primary_key=True),
        sql.Column("digest", sql.String(64), nullable=False),
        sql.Column("job_id", sql.Integer, sql.ForeignKey(job_id, ondelete="CASCADE"), nullable=False),
    )
    op.create_index("ix_tritontune_submission_keys_job_id", "tritontune_submission_keys", ["job_id"])


def _tokens() -> None:
    op.create_table(
        "tritontune_tokens",
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("name", sql.String(100), nullable=False, unique=True),
        sql.Column("digest", sql.String(64), nullable=False),
        sql.Column("role", sql.String(16), nullable=False),
        sql.Column("created_at", sql.String(40), nullable=False),
        sql.Column("expires_at", sql.String(40)),
        sql.Column("last_used_at", sql.String(40)),
    )
    op.create_table(
        "tritontune_sessions",
        sql.Column("digest", sql.String(64), primary_key=True),
        sql.Column(
            "token_id", sql.String(64), sql.ForeignKey("tritontune_tokens.id", ondelete="CASCADE"), nullable=False
        ),
        sql.Column("created_at", sql.String(40), nullable=False),
        sql.Column("expires_at", sql.String(40), nullable=False),
    )
    for column in ("token_id", "expires_at"):
        op.create_index(f"ix_tritontune_sessions_{column}", "tritontune_sessions", [column])


def _others() -> None:
    op.create_table(
        "tritontune_targets",
        sql.Column("name", sql.String(100), primary_key=True),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("document", sql.Text, nullable=False),
    )
    op.create_table(
        "tritontune_schedules",
        sql.Column("name", sql.String(100), primary_key=True),
        sql.Column("target", sql.String(100), sql.ForeignKey("tritontune_targets.name"), nullable=False),
        sql.Column("next_at", sql.String(40)),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("document", sql.Text, nullable=False),
    )
    for column in ("target", "next_at"):
        op.create_index(f"ix_tritontune_schedules_{column}", "tritontune_schedules", [column])
    op.create_table(
        "tritontune_proposals",
        sql.Column("id", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("state", sql.String(16), nullable=False),
        sql.Column("job_id", sql.Integer, nullable=False),
        sql.Column("target", sql.String(100)),
        sql.Column("model", sql.Text, nullable=False),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("document", sql.Text, nullable=False),
    )
    op.create_index("ix_tritontune_proposals_job_id", "tritontune_proposals", ["job_id"])
    for column in ("state", "target", "model"):
        op.create_index(f"tritontune_proposals_by_{column}", "tritontune_proposals", [column, "id"])
    op.create_table(
        "tritontune_holders",
        sql.Column("name", sql.String(100), primary_key=True),
        sql.Column("holder", sql.Text, nullable=False),
        sql.Column("lease", sql.String(100), nullable=False),
        sql.Column("until_s", sql.Float, nullable=False),
    )
