"""Argument checks, JSON text, optional dependencies, verdicts on errors, and wording.

Knows no API, no model and no I/O.
"""
