"""SIMULATED hardware: hierarchies made anew on each run that sign genuine formats.

Only tests and the `confide-sim` device import this. A verifier accepts it only under a policy that pins its root.
"""
