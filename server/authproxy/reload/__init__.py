"""Reload of the configuration."""
