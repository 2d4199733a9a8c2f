"""A worker process: accept connections, serve them, shut down gracefully."""
