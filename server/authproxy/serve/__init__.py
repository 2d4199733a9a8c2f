"""One request: from decision to response."""
