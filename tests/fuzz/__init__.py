"""Fuzzing of all that reads foreign bytes: `run.py` runs a target for minutes."""
