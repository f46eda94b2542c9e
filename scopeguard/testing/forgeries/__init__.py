"""Makes the hostile tokens, one kind of attack in each file. ``forge`` has the parts that they share.

Each token is a valid one with a single change, so a refusal shows that the guard notices this change.
"""
