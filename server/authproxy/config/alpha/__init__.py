"""Alpha configuration files: YAML in the format of oauth2-proxy."""
