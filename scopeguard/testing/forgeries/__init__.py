"""How hostile tokens are made, one kind of attack a file. What they have in common is in ``forge``.

Each starts from a token that the API would accept and changes one thing, so that a refusal shows that this one thing
was seen.
"""
