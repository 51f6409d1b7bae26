"""Signs and verifies with the senders' own libraries, as the JSON on standard input says."""

import json
import sys
from datetime import datetime, timezone

import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from twilio.request_validator import RequestValidator


class Form(dict):
    """A form as web frameworks hand it over: a name may have several values."""

    def getlist(self, name):
        value = self[name]
        return value if isinstance(value, list) else [value]


def standard_sign(case):
    signed_at = datetime.fromtimestamp(case["timestamp"], timezone.utc)
    signature = Webhook(case["secret"]).sign(case["id"], signed_at, case["body"])
    return {
        "webhook-id": case["id"],
        "webhook-timestamp": str(case["timestamp"]),
        "webhook-signature": signature,
    }


def stripe_sign(case):
    content = "%d.%s" % (case["timestamp"], case["body"])
    signature = stripe.WebhookSignature._compute_signature(content, case["secret"])
    return {"stripe-signature": "t=%d,v1=%s" % (case["timestamp"], signature)}


def slack_sign(case):
    timestamp = str(case["timestamp"])
    signature = SignatureVerifier(case["secret"]).generate_signature(timestamp=timestamp, body=case["body"])
    return {"x-slack-request-timestamp": timestamp, "x-slack-signature": signature}


def twilio_sign(case):
    validator = RequestValidator(case["secret"])
    return {"x-twilio-signature": validator.compute_signature(case["url"], Form(case["form"]))}


def twilio_json_sign(case):
    return {"x-twilio-signature": RequestValidator(case["secret"]).compute_signature(case["url"], {})}


def standard_verify(case):
    Webhook(case["secret"]).verify(case["body"], case["headers"])
    return True


def stripe_verify(case):
    header = case["headers"]["stripe-signature"]
    return stripe.WebhookSignature.verify_header(case["body"], header, case["secret"], 300)


def slack_verify(case):
    return SignatureVerifier(case["secret"]).is_valid_request(case["body"], case["headers"])


def twilio_verify(case):
    signature = case["headers"]["x-twilio-signature"]
    return RequestValidator(case["secret"]).validate(case["url"], Form(case["form"]), signature)


def twilio_json_verify(case):
    signature = case["headers"]["x-twilio-signature"]
    return RequestValidator(case["secret"]).validate(case["url"], case["body"], signature)


SIGN = {"standard": standard_sign, "stripe": stripe_sign, "slack": slack_sign, "twilio": twilio_sign,
        "twilio-json": twilio_json_sign}
VERIFY = {"standard": standard_verify, "stripe": stripe_verify, "slack": slack_verify, "twilio": twilio_verify,
          "twilio-json": twilio_json_verify}


def answer(case):
    if case["do"] == "sign":
        return SIGN[case["scheme"]](case)
    try:
        return bool(VERIFY[case["scheme"]](case))
    except Exception as error:
        return type(error).__name__


print(json.dumps([answer(case) for case in json.load(sys.stdin)]))
