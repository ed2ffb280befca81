"""Collect evidence from the hardware that an enclave runs on. Each collector returns bytes; none judges them.

platform       what it needs                                                          bound to the statement by
sev-snp        configfs-tsm (Linux 6.7, module sev-guest), or /dev/sev-guest          report data, SHA-512
tdx            configfs-tsm (module tdx_guest, a quoting service on the host); CCEL    report data, SHA-512
azure-sev-snp  /dev/tpmrm0; endorsements from a file                                   TPM quote's nonce, SHA-256
azure-tdx      /dev/tpmrm0, http://169.254.169.254/acc/tdquote                         TPM quote's nonce, SHA-256
dstack         /var/run/dstack.sock (dstack 0.5 or later)                              report data, SHA-512
GPUs           nvidia-ml-py (extra `gpu`), driver 550 or later, CC mode on             nonce of 32 bytes
"""
