"""Vendors' trust anchors, with their origin in README.md."""
