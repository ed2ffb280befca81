"""Intel TDX: parse (`abi`, `collateral`), authenticate (`library`, `verify`), judge by a policy (`validate`)."""
