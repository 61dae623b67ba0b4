"""The speed of altaprofiles compared with its peers: `python -m benchmarks`.

Each question has a module, whose docstring states the question and the method. They share `server`,
`answers`, `bodies` and `ledger` (the server), `measure` (processes and times), `clients` (sessions
and requests) and `report` (tables).
"""
