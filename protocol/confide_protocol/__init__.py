"""The wire: bytes in, values out. No IO, no clock, no randomness of its own."""
