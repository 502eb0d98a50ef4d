"""Measurements with real sockets and real processes; reported, never asserted."""
