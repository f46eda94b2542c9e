"""Read rules from the description of an API: an OpenAPI or a Google discovery document.

    contract = openapi("openapi.json")
    guard = Guard(issuer, catalog=contract.catalog, rules=Rules(contract.rules))

The rules enforce what the document declares for each operation, and deny everything that it does not describe. If a
declaration cannot be enforced, loading the document raises :class:`~scopeguard.errors.ConfigurationError` with the name
of the operation. Nothing is fetched: documents are files, and a ``$ref`` to another document is refused.
"""

from scopeguard.contracts.comparison import Difference, DifferenceKind, compare
from scopeguard.contracts.contract import Contract, Undeclared
from scopeguard.contracts.google_document import google_discovery
from scopeguard.contracts.openapi_document import openapi

__all__ = ["Contract", "Difference", "DifferenceKind", "Undeclared", "compare", "google_discovery", "openapi"]
