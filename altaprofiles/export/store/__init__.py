"""An export's folder on disk: spools of records, and the journal that counts them.

Blocking; called from the export's own thread.
"""
