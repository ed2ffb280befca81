"""Reports that other providers publish of their enclaves, judged by the same verifiers."""
