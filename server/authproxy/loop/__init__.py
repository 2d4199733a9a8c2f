"""Helpers of a worker's event loop: its clock, queues of callbacks and writes."""
