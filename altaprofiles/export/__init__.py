"""Durable exports: `Session.export` and `Session.export_lookups`.

Data flows one way: a page goes into a spool and is counted in the journal; once everything has
been gathered, the spools go into the sink.
"""
