"""Receives houdini-relay's webhooks in AWS Lambda: verify, drop repeats and old news, store, answer.

Behind a function URL or API Gateway (HTTP or REST API): all three name headers, body and encoding alike. A function
has no disk, so what came is remembered in a DynamoDB table whose key is the text `pk`.
"""

import base64
import json
import os
from typing import Any

import boto3
from botocore.config import Config
from standardwebhooks import Webhook, WebhookVerificationError

TABLE = os.environ.get("RELAY_STATE", "houdini-relay")
MAX_BODY = 350_000  # an item of DynamoDB holds 400 kB
webhook = Webhook(os.environ["RELAY_SECRET"])  # a missing or empty secret must stop the start, not verify everything
# Fail within the relay's patience (15 s): it repeats better than we do, and keeps the order's events in a row.
PATIENCE = Config(connect_timeout=2, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 2})
dynamodb = boto3.client("dynamodb", config=PATIENCE)


def handler(request: dict[str, Any], context: object) -> dict[str, Any]:
    """2xx says "I have it", so it is said only once the event is stored; after an exception (5xx) it comes again."""
    # A REST API keeps the case of header names, the other two write them small.
    headers = {name.lower(): value for name, value in (request.get("headers") or {}).items()}
    text = request.get("body") or ""
    # The bytes as they came, for the signature is over them.
    body = base64.b64decode(text) if request.get("isBase64Encoded") else text.encode()
    if len(body) > MAX_BODY:
        return {"statusCode": 413}
    try:
        webhook.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: a header that is no signature at all
        return {"statusCode": 401}
    accept(headers["webhook-id"], body)
    return {"statusCode": 204}


def accept(webhook_id: str, body: bytes) -> None:
    """Store an event to work on, unless it is a repeat or older than what this order already had."""
    event = json.loads(body)
    # The body as text, as it came: no digit of an amount is lost. Work on it from the table's stream.
    item = {"pk": {"S": f"event#{webhook_id}"}, "body": {"S": body.decode()}}
    writes = [{"Put": {"TableName": TABLE, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}]
    relay = event.get("relay")  # the relay's own notices (relay.*) have none
    if relay:
        newer = {
            "TableName": TABLE,
            "Key": {"pk": {"S": f"order#{event['data']['houdiniId']}"}},
            "UpdateExpression": "SET orderSequence = :sequence",
            "ConditionExpression": "attribute_not_exists(pk) OR orderSequence < :sequence",
            "ExpressionAttributeValues": {":sequence": {"N": str(relay["orderSequence"])}},
        }
        writes.append({"Update": newer})
    try:
        dynamodb.transact_write_items(TransactItems=writes)  # all of them or none
    except dynamodb.exceptions.TransactionCanceledException as cancelled:
        reasons = {reason["Code"] for reason in cancelled.response["CancellationReasons"]}
        if "ConditionalCheckFailed" not in reasons:  # throttled, or another call had the order in hand
            raise
