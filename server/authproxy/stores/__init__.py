"""Stores for sessions, locks and revocations outside of the cookies."""
