"""Exports that survive: what a session's `export` and `export_lookups` do.

Data flows one way: page → spool → journal, and when every chain is done, spool → sink.
"""
