"""Login: authorization request, callback, login state, sign-in page."""
