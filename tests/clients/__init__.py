"""Clients that nobody here wrote, unmodified, before a gateway with two enclaves: `python -m tests.clients`."""
