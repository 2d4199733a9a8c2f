"""Processes: the supervisor, its reloads, and the start of a server."""
