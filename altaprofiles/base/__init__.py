"""Argument checks, JSON text, wording, and verdicts on errors.

Knows no API, no model and no I/O.
"""
