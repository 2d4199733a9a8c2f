"""Logout: sign-out, and back-channel and front-channel logout."""
