"""sd_notify: tells systemd how the daemon is doing; does nothing when NOTIFY_SOCKET is not set."""

import os
import socket


def notify(*assignments: str) -> bool:
    """Send `KEY=value` lines to the service manager; True when there was one to send to.

    Failure to send is not an error: the service manager notices a missing READY by itself.
    Protocol: sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(1)
        try:
            channel.sendto("\n".join(assignments).encode(), address.replace("@", "\0", 1))
        except OSError:
            return False
    return True
