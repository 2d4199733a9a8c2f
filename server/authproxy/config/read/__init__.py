"""Read options from flags, environment variables, TOML and files."""
