"""Who may pass: rules, matchers, public paths, credentials, group membership."""
