"""Sessions: formats, cookies, stored sessions, cache, refresh, revocation."""
