"""The life of one call: a slot, an attempt, its time limits, its retries.

Knows HTTP but no endpoint: `wire` builds the requests and reads the answers.
"""
