"""From the bytes of records to the cells of a table.

Knows no model: a record is a JSON object, and a layout names its columns.
"""
