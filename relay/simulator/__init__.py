"""A stand-in upstream and a verifying receiver; shares no code with what it tests."""
