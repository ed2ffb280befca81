"""Intel TDX: parse (`abi`, `collateral`), authenticate (`library`, `diagnose`), judge (`verify`)."""
