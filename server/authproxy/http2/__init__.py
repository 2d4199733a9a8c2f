"""Sans-IO HTTP/2 for the server side (RFC 9113, RFC 7541)."""
