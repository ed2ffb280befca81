"""The ids of all checks, the ledger that collects their outcomes, and the checks that belong to no vendor."""
