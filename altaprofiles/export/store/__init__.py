"""An export's folder on disk: spools of records, and the journal that counts them.

Everything blocks, and runs in the export's own thread.
"""
