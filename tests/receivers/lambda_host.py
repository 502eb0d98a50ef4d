"""Stands in for AWS in front of a function: HTTP in, an event of a function URL or of a REST API to the handler."""

import base64
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

SHAPE = os.environ["EVENT_SHAPE"]
MAX_REQUEST = 6_000_000
"""What AWS itself takes."""


def as_event(method: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    if SHAPE == "rest":  # names as they were sent, text as text
        names = {name.title(): value for name, value in headers.items()}
        return {"httpMethod": method, "headers": names, "body": body.decode() or None, "isBase64Encoded": False}
    names = {name.lower(): value for name, value in headers.items()}
    encoded = base64.b64encode(body).decode()
    context = {"http": {"method": method}}
    return {"version": "2.0", "requestContext": context, "headers": names, "body": encoded, "isBase64Encoded": True}


class Front(BaseHTTPRequestHandler):
    """One request at a time, as one instance of a function has it."""

    timeout = 5

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(min(length, MAX_REQUEST))
        if len(body) < length:
            return  # the sender went away: AWS calls no function for that
        try:
            answer = handler(as_event("POST", dict(self.headers), body), None)
            json.dumps(answer)
            status = answer["statusCode"]
        except Exception as error:
            print(repr(error), file=sys.stderr)
            status = 502  # what AWS answers for a function that failed
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


if __name__ == "__main__":
    sys.path.insert(0, os.environ["HANDLER_FOLDER"])
    from handler import handler

    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Front).serve_forever()
