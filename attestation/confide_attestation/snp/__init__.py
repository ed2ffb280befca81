"""AMD SEV-SNP: parse (`abi`, `certificates`), authenticate (`chain`, `verify`), judge by a policy (`validate`)."""
