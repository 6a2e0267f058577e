"""Signs webhooks with the SMS provider's own helper library, and asks it what it accepts, so that notify can be held to the same.

Made with the Python packages `twilio`, version 9.13.0, and `werkzeug`, version 3.1.3, whose MultiDict carries repeated names:

    python -m venv sdk && sdk/bin/pip install twilio==9.13.0 werkzeug==3.1.3
    sdk/bin/python services/notify/tests/it/data/sign.py > services/notify/tests/it/data/signatures.json
"""

import json
import sys
from urllib.parse import urlencode, urlsplit

import twilio
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

TOKEN, OTHER_TOKEN = "12345678901234567890123456789012", "rotated_out"
VALIDATOR, OTHER = RequestValidator(TOKEN), RequestValidator(OTHER_TOKEN)

STATUS = [("AccountSid", "AC1"), ("MessageSid", "SM1"), ("MessageStatus", "delivered"), ("To", "+12025550123")]
INBOUND = [("MessageSid", "SM2"), ("From", "+12025550123"), ("To", "+12025550199"), ("Body", "¡Hola! 👋 ok = 1 & 2 + 3\r\n"), ("Empty", "")]
REPEATED = [("MediaUrl", "https://b.example/2"), ("Body", "x"), ("MediaUrl", "https://a.example/1"), ("MediaUrl", "https://b.example/2")]
CASES = [("body", "1"), ("Body", "2"), ("BODY", "3"), ("Body2", "4")]

# Name, URL as the provider calls it, parameters.
FORMS = [
    ("a status", "https://clinic.example.org/webhooks/sms/status", STATUS),
    ("a status at a port", "https://clinic.example.org:8443/webhooks/sms/status?message=0190b2d4", STATUS),
    ("a status at the scheme's own port", "https://clinic.example.org:443/webhooks/sms/status", STATUS),
    ("a status over plain HTTP", "http://127.0.0.1:8080/webhooks/sms/status?a=1&b=%2B2", STATUS),
    ("a text", "https://clinic.example.org/webhooks/sms/inbound", INBOUND),
    ("repeated parameters", "https://clinic.example.org/webhooks/sms/inbound", REPEATED),
    ("names that differ by case", "https://clinic.example.org/webhooks/sms/inbound", CASES),
    ("no parameters", "https://clinic.example.org/webhooks/sms/inbound", []),
]
JSON_BODIES = [
    ("JSON", '{"MessageSid":"SM3","MessageStatus":"delivered"}'),
    ("JSON beyond ASCII", '{"Body":"Zoë – 15 €"}'),
    ("an empty body", ""),
]


def other_port(url):
    """The same address, its port said where it was not and left out where it was the scheme's own."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}[parts.scheme]
    netloc = parts.netloc.rsplit(":", 1)[0] if parts.port == default else parts.netloc if parts.port else f"{parts.netloc}:{default}"
    return parts._replace(netloc=netloc).geturl()


def without_port(url):
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rsplit(":", 1)[0] if parts.port else parts.netloc).geturl()


def flipped(text):
    return ("A" if text[0] != "A" else "B") + text[1:]


def form_cases():
    for name, url, pairs in FORMS:
        good = VALIDATOR.compute_signature(url, MultiDict(pairs))
        yield name, url, pairs, good
        yield f"{name}, told in another order", url, pairs[::-1], good
        yield f"{name}, the port spelled otherwise", other_port(url), pairs, good
        yield f"{name}, signed without the port", url, pairs, VALIDATOR.compute_signature(without_port(url), MultiDict(pairs))
        yield f"{name}, at another port", without_port(url).replace("example.org", "example.org:4443").replace("127.0.0.1", "127.0.0.1:4443"), pairs, good
        yield f"{name}, at another host", url.replace("clinic.", "other.").replace("127.0.0.1", "127.0.0.2"), pairs, good
        yield f"{name}, at another path", url.replace("/sms/", "/sns/"), pairs, good
        yield f"{name}, under another scheme", url.replace("https:", "x:").replace("http:", "https:").replace("x:", "http:"), pairs, good
        yield f"{name}, with another query", url + ("&" if "?" in url else "?") + "c=1", pairs, good
        yield f"{name}, a parameter added", url, pairs + [("Extra", "1")], good
        if pairs:
            yield f"{name}, a parameter left out", url, pairs[1:], good
            yield f"{name}, a value changed", url, [(pairs[0][0], pairs[0][1] + "x")] + pairs[1:], good
            yield f"{name}, a name changed", url, [(pairs[0][0] + "x", pairs[0][1])] + pairs[1:], good
        yield f"{name}, by another token", url, pairs, OTHER.compute_signature(url, MultiDict(pairs))
        yield f"{name}, one letter of the signature changed", url, pairs, flipped(good)
        yield f"{name}, half of the signature", url, pairs, good[:12]
        yield f"{name}, without a signature", url, pairs, ""
    yield "a repetition left out is signed alike", FORMS[5][1], REPEATED[:3], VALIDATOR.compute_signature(FORMS[5][1], MultiDict(REPEATED))


def json_cases():
    for name, body in JSON_BODIES:
        for base in ["https://clinic.example.org/webhooks/sms/status?a=1&", "https://clinic.example.org:8443/webhooks/sms/status?"]:
            url = f"{base}bodySHA256={VALIDATOR.compute_hash(body)}"
            good = VALIDATOR.compute_signature(url, {})
            at = f"{name} at {urlsplit(url).netloc}"
            yield at, url, body, good
            yield f"{at}, the port spelled otherwise", other_port(url), body, good
            yield f"{at}, a byte added", url, body + " ", good
            yield f"{at}, another hash", url.replace(url[-4:], "0000"), body, good
            yield f"{at}, another body with its own hash", f"{base}bodySHA256={VALIDATOR.compute_hash('{}')}", "{}", good
            yield f"{at}, by another token", url, body, OTHER.compute_signature(url, {})
            yield f"{at}, one letter of the signature changed", url, body, flipped(good)


def vectors():
    for name, url, pairs, signature in form_cases():
        accepted = VALIDATOR.validate(url, MultiDict(pairs), signature)
        yield {"name": name, "url": url, "form": urlencode(pairs), "signature": signature, "accepted": accepted}
    for name, url, body, signature in json_cases():
        accepted = VALIDATOR.validate(url, body, signature)
        yield {"name": name, "url": url, "json": body, "signature": signature, "accepted": accepted}


json.dump(
    {"made_with": f"twilio {twilio.__version__}", "token": TOKEN, "vectors": list(vectors())},
    sys.stdout,
    indent=1,
    ensure_ascii=False,
)
print()
