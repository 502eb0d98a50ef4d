"""The durable middle: orders, events, deliveries and attempts."""
