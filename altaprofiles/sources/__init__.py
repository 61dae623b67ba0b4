"""Where records come from: cursor chains, lookups by key, and the two joined.

Each source asks through the engine and keeps no state between calls.
"""
