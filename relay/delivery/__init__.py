"""Store to target: scheduling, signing and sending deliveries."""
