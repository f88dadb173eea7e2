"""The steps from one schema of the database to the next. Alembic runs them when the database is opened."""
