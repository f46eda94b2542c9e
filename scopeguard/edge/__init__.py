"""The outside world: clocks, threads, event loops, files and HTTP live in this folder and nowhere else.

The law of this folder: it performs effects and knows nothing of OAuth. What blocks happens in a thread that belongs
to a flight, never in an event loop, and every wait has a deadline. No thread, socket or loop exists before the first
effect asks for one.
"""
