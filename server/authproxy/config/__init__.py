"""From flags, environment and files to `ServerSettings`."""
