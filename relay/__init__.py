"""houdini-relay: order updates from HoudiniSwap's WebSocket to signed, durable webhooks."""

__version__ = "0.1.0"
