"""Tables made from the bytes of records.

Knows no model: a record is a JSON object, and the layout names the columns.
"""
