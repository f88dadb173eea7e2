"""What the service stores: an index of the job folders, and tokens.

SQLite or PostgreSQL, by SQLAlchemy. All methods are synchronous, and each is one short transaction.
"""
