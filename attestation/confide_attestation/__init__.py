"""Appraisal of evidence: `appraise` decides, everybody else renders. No IO, no clock, no environment."""
