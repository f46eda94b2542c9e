"""``scopeguard serve``: HTTP servers, worker processes, reloading, forwarded headers and the access log."""
