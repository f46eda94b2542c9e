"""The server product behind ``scopeguard serve``: servers, workers, reloading, forwarded headers and the access log."""
