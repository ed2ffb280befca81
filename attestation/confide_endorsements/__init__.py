"""Fetch what vendors say of hardware, and keep it: the only package of attestation that touches network and disk.

No verifier imports it, and nothing here is trusted: a document counts once a verifier has judged its signatures.
"""
