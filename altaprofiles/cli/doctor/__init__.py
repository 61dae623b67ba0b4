"""`altaprofiles doctor`: examines a set-up step by step and says how to mend it.

Each finding is printed as soon as it is known.
"""
