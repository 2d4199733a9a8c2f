"""Reload of the configuration: read it, prepare it, commit it in a worker."""
