"""Floods of `bench/floods.py`: attacks, targets and a well-behaved client."""
