"""The schema's history, run by alembic; tables are created nowhere else."""
