"""Upstream to store: the WebSocket session, REST sweeps, and the one ingest both go through."""
