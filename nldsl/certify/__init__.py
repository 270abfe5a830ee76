"""Certify: a compiled program is held against the interpreter, and what was compared is written down."""

from nldsl.certify.certificate import Certificate, CheckResult, Difference, Section
from nldsl.certify.rules import RuleCertificate, rules_in, rules_of, verify_rules
from nldsl.certify.verify import verify

__all__ = [
    "Certificate",
    "CheckResult",
    "Difference",
    "RuleCertificate",
    "Section",
    "rules_in",
    "rules_of",
    "verify",
    "verify_rules",
]
