"""Azure's confidential machines: HCL report (`hcl`), TPM quote (`tpm`), from one to the other (`verify`)."""
