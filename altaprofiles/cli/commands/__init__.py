"""One file for each command of `altaprofiles`, named as the command is.

A command declares its options and calls one coroutine.
"""
