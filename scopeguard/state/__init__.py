"""The run-time state of a guard: keys, answers, revocations, budgets and pauses.

Nothing here does I/O, reads a clock or logs: the time is an argument. A lock is held for a few assignments and never
during a wait.
"""
