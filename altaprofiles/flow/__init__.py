"""Background work for one reader: in order, bounded, cancelled with its session.

Knows no API and no model; the work itself is passed in.
"""
