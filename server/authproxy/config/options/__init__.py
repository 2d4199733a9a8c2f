"""The option table."""
