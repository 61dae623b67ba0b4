"""Every rule of the two APIs, as pure functions: what to ask, and what an answer means.

Nothing here knows about connections, clocks or tasks. A function builds a `Request`, another turns
a `Response` into a value or raises the error that it stands for.
"""
