"""What a request contains: original request, hosts, forms, credentials, trace."""
