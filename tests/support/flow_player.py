"""Runs a flow in this thread, as the edges do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scopeguard.flow.effects import Flow


def play(flow: Flow[Any], perform: Callable[[object], object]) -> Any:
    """Return the result of *flow*. *perform* carries out each effect; what it raises is thrown into the flow."""
    try:
        effect = next(flow)
        while True:
            try:
                answer = perform(effect)
            except Exception as error:  # noqa: BLE001 - an edge throws every exception into the flow
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        return stop.value
