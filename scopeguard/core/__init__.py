"""What a :class:`~scopeguard.guard.Guard` is made of. Adapters and endpoints use it; users hold the guard."""
