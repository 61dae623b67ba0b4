"""Background work for one reader: in order, bounded, cancelled with its session.

Knows no API and no model: the functions to run are passed in.
"""
