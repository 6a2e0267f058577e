"""Signs webhooks with the payment provider's own SDK, and asks it what it accepts, so that billing can be held to the same.

Made with the Python package `stripe`, version 16.1.0:

    python -m venv sdk && sdk/bin/pip install stripe==16.1.0
    sdk/bin/python services/billing/tests/it/data/sign.py > services/billing/tests/it/data/signatures.json
"""

import json
import sys
import time

import stripe

SECRET, OLD_SECRET = "whsec_vectors", "whsec_rotated_out"
SIGNED_AT = 1_790_000_000
TOLERANCE_SECS = 300

PAYLOADS = {
    "plain": '{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","object":"payment_intent"}}}',
    "pretty": '{\n  "id": "evt_2",\n  "object": "event",\n  "type": "refund.failed",\n  "data": {"object": {"id": "re_1", "object": "refund"}}\n}\n',
    "unicode": '{"id":"evt_3","object":"event","type":"charge.expired","data":{"object":{"id":"ch_1","object":"charge","note":"Zoë – 15 €"}}}',
}


def computed(payload, secret=SECRET, at=SIGNED_AT):
    return stripe.WebhookSignature._compute_signature(f"{at}.{payload}", secret)


def built(payload, secret=SECRET, at=SIGNED_AT):
    return stripe.WebhookSignature.generate_signature_header(payload, secret, timestamp=at)


def cases():
    for name, payload in PAYLOADS.items():
        good, old = computed(payload), computed(payload, OLD_SECRET)
        header = built(payload)
        flipped = ("0" if good[0] != "0" else "1") + good[1:]
        yield name, payload, header, 0
        yield f"{name}, at the end of the tolerance", payload, header, TOLERANCE_SECS
        yield f"{name}, too old", payload, header, TOLERANCE_SECS + 1
        yield f"{name}, several v1, the good one last", payload, f"t={SIGNED_AT},v1={old},v1={good}", 0
        yield f"{name}, several v1, the good one first", payload, f"t={SIGNED_AT},v1={good},v1={old}", 0
        yield f"{name}, beside another scheme", payload, f"t={SIGNED_AT},v1={good},v0={old}", 0
        yield f"{name}, only another scheme", payload, f"t={SIGNED_AT},v0={good}", 0
        yield f"{name}, several v1, none good", payload, f"t={SIGNED_AT},v1={old},v1={flipped}", 0
        yield f"{name}, with another secret", payload, built(payload, OLD_SECRET), 0
        yield f"{name}, one digit of the signature changed", payload, f"t={SIGNED_AT},v1={flipped}", 0
        yield f"{name}, half of the signature", payload, f"t={SIGNED_AT},v1={good[:32]}", 0
        yield f"{name}, the time changed", payload, f"t={SIGNED_AT + 1},v1={good}", 0
        yield f"{name}, a byte of the body added", payload + " ", header, 0
        yield f"{name}, a byte of the body changed", payload.replace("evt", "evs"), header, 0
        yield f"{name}, without a time", payload, f"v1={good}", 0
        yield f"{name}, without a signature", payload, f"t={SIGNED_AT}", 0
    yield "no header", PAYLOADS["plain"], "", 0


def accepted(payload, header, age):
    # The SDK reads the clock by itself.
    time.time = lambda: float(SIGNED_AT + age)
    try:
        stripe.Webhook.construct_event(payload, header, SECRET, tolerance=TOLERANCE_SECS)
        return True
    except stripe.SignatureVerificationError:
        return False


json.dump(
    {
        "made_with": f"stripe {stripe.VERSION}",
        "secret": SECRET,
        "signed_at": SIGNED_AT,
        "vectors": [
            {"name": name, "payload": payload, "header": header, "age_secs": age, "accepted": accepted(payload, header, age)}
            for name, payload, header, age in cases()
        ],
    },
    sys.stdout,
    indent=1,
    ensure_ascii=False,
)
print()
