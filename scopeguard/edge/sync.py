"""Drives a flow in the calling thread: for WSGI, for sync endpoints, for scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from scopeguard.edge.runtime import Runtime
from scopeguard.flow.effects import Flow

T = TypeVar("T")


def run(flow: Flow[T], runtime: Runtime, read_form: Callable[[int], bytes] | None) -> T:
    """Run *flow* in this thread and return its value.

    *read_form* reads the request body, up to the given number of bytes.
    """
    result: T = runtime.perform(flow, None if read_form is None else lambda effect: read_form(effect.limit))
    return result
