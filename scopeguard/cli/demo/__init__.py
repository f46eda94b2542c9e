"""``scopeguard demo``: a guarded API, its clients and their authorization server, in eleven steps on loopback.

With ``--serve`` the servers keep running after the last step, for experiments by hand.
"""
