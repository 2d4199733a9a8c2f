"""The flows: what a request leads to when the identity provider is needed."""
