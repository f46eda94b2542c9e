"""Caches without a clock: plan under the lock, act outside it.

The law of this folder: no I/O, no clock, no logging; the time is an argument. A lock is held for a handful of
assignments and never while anything waits.
"""
