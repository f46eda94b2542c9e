"""Code that all adapters share: the base class of middleware, the marks of decorators, CORS, and ASGI messages."""
