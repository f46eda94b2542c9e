"""The I/O of a guard: clocks, threads, event loops, files and HTTP.

This folder performs effects and contains no OAuth logic. Blocking calls run in the thread of a flight, never in an
event loop, and every wait has a deadline. No thread, socket or loop exists before an effect needs it.
"""
