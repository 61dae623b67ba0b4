"""Sources of records: cursor chains, lookups by key, and the two joined.

Each source sends through the engine and keeps no state between calls.
"""
