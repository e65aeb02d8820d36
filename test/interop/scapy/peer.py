"""Seals and opens ESP and AH packets with scapy, as JSON from standard input asks.

{"do": "open" or "seal", "cases": [CASE, ...]} gives {"version": TEXT, "results": [RESULT, ...]},
in the same order.
CASE: protocol ("esp", "ah"), spi, seq, seqHigh (null without ESN), tunnel (null, or the outer
[source, destination]), udp, encryption and authentication (scapy's names, or null), encryptionKey
and authenticationKey (hexadecimal), icvLen (octets), family (of `packet`), packet (hexadecimal:
what is to be sealed or opened).
RESULT: {"packet": hexadecimal} or {"error": TEXT}.
"""

import json
import logging
import sys
import warnings

warnings.filterwarnings("ignore")
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

import scapy  # noqa: E402
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import AH, ESP, SecurityAssociation  # noqa: E402

NATT_PORT = 4500


def association(case):
    options = {"spi": case["spi"], "seq_num": case["seq"]}
    if case["encryption"]:
        key = bytes.fromhex(case["encryptionKey"])
        options.update(crypt_algo=case["encryption"], crypt_key=key or None)
        options.update(crypt_icv_size=case["icvLen"] or None)
    if case["authentication"]:
        key = bytes.fromhex(case["authenticationKey"])
        options.update(auth_algo=case["authentication"], auth_key=key)
    if case["tunnel"]:
        source, destination = case["tunnel"]
        options["tunnel_header"] = (IPv6 if ":" in source else IP)(src=source, dst=destination)
    if case["udp"]:
        options["nat_t_header"] = UDP(sport=NATT_PORT, dport=NATT_PORT)
    if case["seqHigh"] is not None:
        options.update(esn_en=True, esn=case["seqHigh"])
    return SecurityAssociation(ESP if case["protocol"] == "esp" else AH, **options)


def result(case, do):
    packet = (IP if case["family"] == 4 else IPv6)(bytes.fromhex(case["packet"]))
    try:
        sa = association(case)
        done = sa.decrypt(packet) if do == "open" else sa.encrypt(packet, seq_num=case["seq"])
        return {"packet": bytes(done).hex()}
    except Exception as error:  # scapy and the library below it raise many kinds
        return {"error": f"{type(error).__name__}: {error}"}


request = json.load(sys.stdin)
results = [result(case, request["do"]) for case in request["cases"]]
json.dump({"version": scapy.__version__, "results": results}, sys.stdout)
