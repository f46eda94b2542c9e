"""The implementation of :class:`~scopeguard.guard.Guard`, for adapters and endpoints. Users call the guard."""
