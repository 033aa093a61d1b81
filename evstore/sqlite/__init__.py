"""The embedded engine: one SQLite file that holds the log and its present."""
