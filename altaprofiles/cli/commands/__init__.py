"""One file for each command of `altaprofiles`, named after the command.

A file declares the options, does the work in a session, and renders the answer.
"""
