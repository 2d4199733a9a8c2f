"""The intended differences from oauth2-proxy, and the configurations that they touch."""
