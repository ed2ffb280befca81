"""Event logs of TDs: CCEL (`ccel`), dstack's (`dstack`), what they make (`replay`), the verdict (`verify`)."""
