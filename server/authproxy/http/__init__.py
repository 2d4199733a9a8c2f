"""Sans-IO HTTP codecs: request and response heads, bodies, trailers."""
