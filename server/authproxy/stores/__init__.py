"""Where sessions, locks and revocations are kept outside of the cookies."""
