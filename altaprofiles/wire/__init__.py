"""Every rule of the two APIs, as pure functions without connections, clocks or tasks.

One function builds a `Request`, another turns a `Response` into a value or raises its error. Each
rule cites its source in square brackets. The docstring of its module lists the sources.
"""
