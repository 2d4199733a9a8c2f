"""Moves a configuration of another program to authproxy."""
