"""NVIDIA GPUs and switches: parse (`spdm`, `rim`), authenticate (`chain`, `ocsp`), judge (`verify`, `nras`)."""
