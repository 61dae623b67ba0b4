"""How fast altaprofiles is, beside its peers: `python -m benchmarks`.

One module per question; each says in its docstring what it asks and how. What they share: `server`
and `bodies` (what is talked to), `measure` (who talks, and how long it takes), `clients` (how to
talk), `report` (what is printed).
"""
