"""Access control: rules, matchers, bypass options, credentials, membership."""
