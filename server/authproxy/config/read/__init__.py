"""Read options: flags, environment, TOML, files."""
