"""The life of one call: a slot, an attempt, its limits, its retries.

Knows HTTP and no endpoint: `wire` says what to send and how to read the answer.
"""
