"""The option table, one module for each area."""
