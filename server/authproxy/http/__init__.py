"""Sans-IO codecs: heads, bodies, responses, PROXY protocol."""
