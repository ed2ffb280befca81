"""AMD SEV-SNP: parse (`abi`), authenticate (`certificates`, `verify`), judge against a policy (`validate`)."""
