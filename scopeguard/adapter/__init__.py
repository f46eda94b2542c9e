"""What all adapters share: the base of middleware, the marks that decorators leave, and CORS preflights."""
