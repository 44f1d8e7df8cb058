"""Caches: replies to subcalls, by all that decided them. See `base` for what a cache is."""
