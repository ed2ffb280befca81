"""Event logs of TDs: parse (`ccel`, `dstack`), replay and compare (`replay`, `verify`), the verdict (`judge`)."""
