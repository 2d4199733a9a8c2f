"""Load `ServerSettings` from flags, environment variables and files."""
