"""Rows, the event log and migrations: everything that knows SQL."""
