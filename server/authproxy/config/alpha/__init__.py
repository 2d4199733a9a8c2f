"""Alpha configuration files (YAML)."""
