"""Argument checks, paths, JSON text, optional dependencies, verdicts on errors, and wording.

Knows no API and no model.
"""
