"""Build settings from resolved options."""
