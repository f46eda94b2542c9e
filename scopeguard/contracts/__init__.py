"""An API's own description as its policy: rules read from OpenAPI and from Google discovery documents.

    contract = openapi("openapi.json")
    guard = Guard(issuer, catalog=contract.catalog, rules=Rules(contract.rules))

Every operation enforces what the document says of it, and what the document does not describe is denied. What cannot
be enforced is refused when the document is loaded, with the operation named. Documents are files: nothing is
fetched, and a ``$ref`` to elsewhere is refused.
"""

from scopeguard.contracts.comparison import Difference, DifferenceKind, compare
from scopeguard.contracts.contract import Contract, Undeclared
from scopeguard.contracts.google import google_discovery
from scopeguard.contracts.openapi import openapi

__all__ = ["Contract", "Difference", "DifferenceKind", "Undeclared", "compare", "google_discovery", "openapi"]
