"""OpenID Connect and JOSE: requests, responses, tokens, keys."""
