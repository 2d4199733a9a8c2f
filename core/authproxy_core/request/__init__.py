"""Request parsing: original request, hosts, forms, Authorization, trace context."""
